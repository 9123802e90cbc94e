"""The worst errors over the adversarial suite of the tests, against 60-digit truth.

    python bench/accuracy.py                      the eager backend
    TRITON_INTERPRET=1 python bench/accuracy.py   the kernels, in Triton's interpreter

Writes reports/accuracy-BACKEND.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

import torch
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import accuracy_lq
import adversarial_lq
from accuracy import LOSS_BOUND, Errors, errors, gradient_bound
from adversarial import cases

SHAPES = {
    "eager": [
        (1, 13), (2, 30), (5, 6), (5, 24), (5, 100), (10, 11), (10, 40), (16, 17), (16, 64), (16, 150),
        (20, 21), (20, 25), (20, 80), (50, 51), (50, 120),
    ],
    "triton": [
        (1, 13), (2, 30), (5, 6), (5, 24), (5, 100), (10, 11), (10, 40), (16, 17), (16, 64), (16, 150),
    ],
}  # fmt: skip
LQ_CLASSES = {"eager": (2, 10, 100, 2000), "triton": (2, 10, 60)}


def row(k: int, n: int, backend: str) -> str:
    found: list[Errors] = list(errors(cases(k, n), torch.float32, backend))
    loss = max(found, key=lambda e: e.loss)
    gradient = max(found, key=lambda e: e.gradient)
    entry = max(e.entry for e in found)
    order = 1 + k // 5
    taylor = max(e.gradient for e in errors(cases(k, n), torch.float32, backend, order))
    bound = f"{gradient_bound(k, n):.0e}"
    return (
        f"| {k} | {n} | {loss.loss:.1e} | {gradient.gradient:.1e} | {bound} | {gradient.name} | "
        f"{entry:.1e} | {taylor:.0e} |"
    )


def lq_row(q: float, n: int, backend: str) -> str:
    found = list(accuracy_lq.errors(adversarial_lq.cases(n), q, torch.float32, backend))
    loss, gradient, entry = (
        max(getattr(e, name) for e in found) for name in ("loss", "gradient", "entry")
    )
    return f"| {q:g} | {n} | {loss:.1e} | {gradient:.1e} | {entry:.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("reports"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # of the interpreter
    backend = "triton" if os.environ.get("TRITON_INTERPRET") == "1" else "eager"
    rows = [row(k, n, backend) for k, n in track(SHAPES[backend])]
    lq_rows = [lq_row(q, n, backend) for n in track(LQ_CLASSES[backend]) for q in adversarial_lq.QS]
    where = "in Triton's interpreter" if backend == "triton" else "on the CPU"
    text = [
        f"# Accuracy of the {backend} backend",
        "",
        "## smooth_svm",
        "",
        f"float32, {where}, against 60 digits; the worst over the rows of tests/adversarial.py (tau from 1e-4 to "
        "1e4, spreads up to 1e4, ties, near ties, dominant and masked scores). Loss: relative, promised "
        f"{LOSS_BOUND:.0e}. Gradient: relative to the row's largest entry. Entry: relative, single entries above "
        "1e-30, promised 1e-4 for n >= 4 k. Where the loss is exponentially small the rounding of z, |z| 2^-23, is "
        'allowed for. Taylor: the error of the gradient with gradient="taylor" and the default order.',
        "",
        "| k | n | loss | gradient | promised | its worst row | entry | Taylor |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "## lq_loss",
        "",
        "The worst over the rows of tests/adversarial_lq.py (the label up to 1000 above and below the other classes, "
        "ties, offsets, masked scores), in the same terms; promised 1e-6, 1e-6 and 1e-5. In the gradient the "
        "rounding of q log p_y, |q log p_y| 2^-23, is allowed for.",
        "",
        "| q | n | loss | gradient | entry |",
        "|---|---|---|---|---|",
        *lq_rows,
        "",
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"accuracy-{backend}.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()

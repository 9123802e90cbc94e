"""How much faster than the references the loss is on this machine's CPU, forward + backward.

    python bench/cpu_ratios.py

Writes reports/cpu-ratios.md.  Each ratio is the median of several rounds in which the implementations
take turns; the authors' package `topk` takes part where it can be imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.utils.benchmark import Timer

import triton_topk
from triton_topk import reference

BATCH = 256
SHAPES = [(n, k) for n in (100, 1000, 10_000) for k in (2, 5, 10, 20, 50)]
TARGETS = {100: 8, 1000: 15, 10_000: 15}
LQ_BATCHES = (256, 4096)
LQ_CLASSES = 1000

Loss = Callable[[Tensor, Tensor], Tensor]


def implementations(n: int, k: int) -> dict[str, Loss]:
    found: dict[str, Loss] = {
        "smooth_svm": lambda scores, labels: triton_topk.smooth_svm(scores, labels, k),
        "cross_entropy": F.cross_entropy,
        "divide & conquer": lambda scores, labels: reference.smooth_svm(scores, labels, k).mean(),
    }
    if importlib.util.find_spec("topk") is not None and k > 1:
        from topk.svm import SmoothTopkSVM

        found["authors' topk"] = SmoothTopkSVM(n_classes=n, alpha=1.0, tau=1.0, k=k)
    return found


def seconds(loss: Loss, scores: Tensor, labels: Tensor, rounds: int) -> float:
    def step() -> None:
        scores.grad = None
        loss(scores, labels).backward()

    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    return timer.timeit(rounds).mean


def measure(losses: dict[str, Loss], batch: int, n: int, turns: int) -> dict[str, list[float]]:
    torch.manual_seed(0)
    scores = torch.randn(batch, n, requires_grad=True)
    labels = torch.randint(n, (batch,))
    rounds = {name: max(1, int(0.05 / seconds(f, scores, labels, 1))) for name, f in losses.items()}
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(turns):
        for name, loss in losses.items():
            times[name].append(seconds(loss, scores, labels, rounds[name]))
    return times


def row(n: int, k: int, times: dict[str, list[float]]) -> str:
    ours = times["smooth_svm"]

    def ratio(name: str) -> str:
        if name not in times:
            return ""
        return f"{statistics.median(t / o for t, o in zip(times[name], ours, strict=True)):.3g}"

    milliseconds = statistics.median(ours) * 1e3
    others = (ratio(name) for name in ("divide & conquer", "authors' topk", "cross_entropy"))
    return f"| {n} | {k} | {milliseconds:.2f} | {' | '.join(others)} | {TARGETS[n]} |"


def lq_row(batch: int, turns: int) -> str:
    losses: dict[str, Loss] = {
        "lq_loss": triton_topk.lq_loss,
        "cross_entropy": F.cross_entropy,
        "smooth_svm_lq": triton_topk.smooth_svm_lq,
        "smooth_svm": triton_topk.smooth_svm,
        "hard_svm": triton_topk.hard_svm,
    }
    times = measure(losses, batch, LQ_CLASSES, turns)

    def ratio(name: str, other: str) -> str:
        pairs = zip(times[name], times[other], strict=True)
        return f"{statistics.median(t / o for t, o in pairs):.2f}"

    return (
        f"| {batch} | {ratio('lq_loss', 'cross_entropy')} | {ratio('smooth_svm_lq', 'smooth_svm')} | "
        f"{ratio('hard_svm', 'smooth_svm')} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports"))
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="topk")
    rows = [
        row(n, k, measure(implementations(n, k), BATCH, n, arguments.turns))
        for n, k in track(SHAPES)
    ]
    lq_rows = [lq_row(batch, arguments.turns) for batch in LQ_BATCHES]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "cpu-ratios.md").write_text(
        "\n".join(
            [
                "# CPU: time of others over time of smooth_svm",
                "",
                f"Forward + backward of the mean, float32, {BATCH} rows, {torch.get_num_threads()} threads, "
                f"{platform.machine()}, torch {torch.__version__}. A number below 1: the other is faster. "
                "The target is for the first two ratios.",
                "",
                "| n | k | smooth_svm, ms | divide & conquer | authors' topk | F.cross_entropy | target |",
                "|---|---|---|---|---|---|---|",
                *rows,
                "",
                f"Time over time of another loss, {LQ_CLASSES} classes. Targets: 1.5 and 1.3.",
                "",
                "| rows | lq_loss over F.cross_entropy | smooth_svm_lq over smooth_svm | hard_svm over smooth_svm |",
                "|---|---|---|---|",
                *lq_rows,
                "",
            ]
        )
    )


if __name__ == "__main__":
    main()

"""Each structure of kernel on rows that are hard for it, compiled, against the eager backend in float64.

    python -m bench.smoke

Outputs hold NaN before.  Where there is a gradient these are checked, too: the same bits in many runs and for a row
alone, and equal gradients of equal scores.  A line for each; the exit code is 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bench.ahead_of_time import Case
from triton_topk import eager
from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.kernels import launch

_ROWS = 24
F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64

STRUCTURES = [
    *(Case(1000, k, F32) for k in (5, 1, 2, 10, 16)),
    *(Case(1000, 5, dtype) for dtype in (BF16, F16, F64)),
    Case(1000, 5, F32, order=2),
    Case(1000, 5, F32, hits=True),
    Case(1000, 5, F32, aligned=False),
    *(Case(n, 5, F32) for n in (21, 128, 1001, 4096, 16_384, 32_768, 131_072)),
    *(Case(n, 5, BF16) for n in (1001, 4096, 32_768, 131_072)),
    *(Case(n, k, F32) for n in (21, 1001) for k in (10, 16)),
    *(Case(1000, 5, dtype, loss="hard_svm") for dtype in (F32, BF16)),
    *(Case(n, 5, dtype, loss="smooth_svm_lq") for n in (1000, 32_768) for dtype in (F32, BF16)),
    Case(1000, 5, F64, loss="smooth_svm_lq"),
    *(Case(n, None, dtype, loss="lq_loss") for n in (1000, 32_768) for dtype in (F32, BF16)),
    Case(1000, None, F64, loss="lq_loss"),
    *(Case(131_072, 5, F32, loss=loss) for loss in ("lq_loss", "hard_svm", "smooth_svm_lq")),
    Case(1000, 5, F32, gradient=False),
]


def hard_rows(n: int, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + k)
    scores = torch.randn(_ROWS, n, generator=generator) * 2
    labels = torch.randint(1, n, (_ROWS,), generator=generator)
    rows = iter(range(_ROWS))
    scores[next(rows)].mul_(2).round_()  # ties
    scores[next(rows), ::2] = -math.inf  # masked classes
    scores[next(rows)] = 1.0
    scores[next(rows), :k] = 40.0
    row = next(rows)
    scores[row, labels[row]] = -math.inf  # a masked label
    scores[next(rows)] += 100.0
    row = next(rows)
    labels[row], scores[row, 3] = -100, math.nan  # ignored, whatever its scores are
    scores[next(rows), n // 2] = math.nan
    row = next(rows)
    scores[row, n - 1], labels[row] = math.inf, 0
    row = next(rows)
    scores[row, labels[row]] = math.inf
    row = next(rows)
    scores[row, labels[row]] = scores[row, 0] = scores[row].max()  # the label is tied
    for left in (0, 1, k - 1):  # other classes
        row = next(rows)
        scores[row], labels[row] = -math.inf, n - 1
        scores[row, :left] = torch.arange(left) / 2
        scores[row, n - 1] = 1.0
    for wrong in (n, n + 3, -1):  # no class
        labels[next(rows)] = wrong
    for label in (0, n - 1, n // 2, min(512, n - 1)):  # the first of a part among them
        labels[next(rows)] = label
    return scores, labels


def outputs(
    run: Callable[..., None], case: Case, scores: Tensor, labels: Tensor, device: str
) -> dict[str, Tensor]:
    """Losses, gradient and hits."""
    n_rows, n = scores.shape
    accumulated = accumulation_dtype(scores.dtype)
    kind = {"device": device, "dtype": accumulated}
    found = {"losses": torch.full((n_rows,), math.nan, **kind)}
    given = {"normalizer": torch.tensor(2.0, **kind)}
    if case.gradient:
        found["gradient"] = torch.full((n_rows, n), math.nan, device=device, dtype=scores.dtype)
    if case.hits:
        found["hits"] = torch.zeros(n_rows, 2, device=device, dtype=torch.bool)
        of_classes, of_rows = torch.linspace(0, 1, n, **kind), labels.to(**kind) / n
        given["margins"] = (of_classes[:, None] + of_rows).t()  # of other strides than the scores
        given["weight"] = torch.linspace(0.5, 2, n, **kind)
    rows = scores.to(device)
    if not case.aligned:
        wider = torch.zeros(n_rows, n + 1, device=device, dtype=scores.dtype)
        rows = wider[:, 1:].copy_(rows)
    run(Batch(rows, labels.to(device), **given), case.parameters, **found)
    return found


def faults(case: Case, repeats: int, device: str = "cuda") -> Iterator[str]:
    kernel = partial(outputs, launch.run, case, device=device)
    k = case.k or 5
    scores, labels = hard_rows(case.n, k)
    scores = scores.to(case.dtype)
    found = kernel(scores, labels)
    truth = outputs(eager.run, case, scores.double(), labels, "cpu")
    rounding = 1e-10 if case.dtype == F64 else 2e-6
    for name, x in found.items():
        if name == "hits":
            if not torch.equal(x.cpu(), truth[name]):
                yield "hits differ"
            continue
        x, y = x.cpu().double(), truth[name].double()
        if not torch.equal(x.isnan(), y.isnan()):
            rows = (x.isnan() != y.isnan()).reshape(_ROWS, -1).any(1).nonzero().flatten()
            yield f"{name}: NaN differs in rows {rows.tolist()}"
        error = torch.where(x == y, 0.0, (x - y).abs()).nan_to_num(0.0)
        size = y.abs().nan_to_num(0.0)
        if name == "gradient":
            error, size = error.amax(1), size.amax(1)
            bound = torch.finfo(case.dtype).eps / 2 + 2 * rounding
            if case.order is not None:
                bound = 3e-3
        else:
            bound = rounding
        worst = float((error / (size + 1e-30)).amax())
        if not worst <= bound:
            yield f"{name} off by {worst:.2g} in row {int((error / (size + 1e-30)).argmax())}"
    if not case.gradient:
        return
    for row in range(_ROWS):
        of_row = found["gradient"][row].cpu().nan_to_num(7.0)
        others = torch.arange(case.n) != labels[row]
        values, counts = scores[row, others].unique(return_counts=True)
        for value in values[counts > 1]:
            tied = of_row[(scores[row] == value) & others]
            if tied.unique().numel() > 1:
                yield f"unequal gradients of equal scores in row {row}: {value}"
                break
    for _ in range(repeats):
        again = kernel(scores, labels)
        if any(not _same_bits(again[name], x) for name, x in found.items()):
            yield "other bits in another run"
            break
    for row in (2, 5, 23):
        alone = kernel(scores[row : row + 1], labels[row : row + 1])
        if any(
            name != "hits" and not _same_bits(x, found[name][row : row + 1])
            for name, x in alone.items()
        ):
            yield f"other bits of row {row} alone"


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def main(given: Sequence[str] | None = None, device: str = "cuda") -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-k", default="", help="only structures whose names match")
    parser.add_argument(
        "--repeats", type=int, default=100, help="runs that must agree (%(default)s)"
    )
    arguments = parser.parse_args(given)
    cases = [case for case in STRUCTURES if re.search(arguments.k, str(case))]
    if not cases:
        parser.error(f"no structure matches {arguments.k!r}")
    failed = 0
    for case in cases:
        start = time.perf_counter()
        try:
            found = list(faults(case, arguments.repeats, device))
        except Exception as error:  # what a line is about
            found = [f"{type(error).__name__}: {str(error)[:300]}"]
        failed += bool(found)
        said = "; ".join(found) or "right"
        print(f"{case!s:40} {time.perf_counter() - start:5.1f} s  {said}", flush=True)
    print(f"{failed} structures are wrong" if failed else "All structures are right.")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

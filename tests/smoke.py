"""Each structure of kernel, compiled, is compared with the eager backend in float64 on rows that are hard for it.

    python -m tests.smoke

Outputs hold NaN before.  A gradient must also have the same bits in many runs and for a row alone, and equal scores
must have equal ones.  Each structure has a line; the exit code is 1 if one is wrong.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.ahead_of_time import BF16, F16, F32, F64, Case
from bench.arguments import Parser
from tests import in_shards
from triton_topk import eager
from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.kernels import launch

_ROWS = 24

STRUCTURES = [
    *(Case(1000, k, F32) for k in (5, 1, 2, 10, 16)),
    *(Case(1000, 5, dtype) for dtype in (BF16, F16, F64)),
    Case(1000, 5, F32, order=2),
    Case(1000, 5, F32, hits=True),
    Case(1000, 5, F32, aligned=False),
    *(Case(n, 5, F32) for n in (21, 128, 1001, 4096, 16_384, 32_768, 131_072)),
    *(Case(n, 5, BF16) for n in (21, 100, 1001, 4096, 32_768, 131_072)),
    *(Case(n, k, F32) for n in (21, 1001) for k in (10, 16)),
    *(Case(1000, 5, dtype, loss="hard_svm") for dtype in (F32, BF16)),
    *(Case(n, 5, dtype, loss="smooth_svm_lq") for n in (1000, 32_768) for dtype in (F32, BF16)),
    Case(1000, 5, F64, loss="smooth_svm_lq"),
    *(Case(n, None, dtype, loss="lq_loss") for n in (1000, 32_768) for dtype in (F32, BF16)),
    Case(1000, None, F64, loss="lq_loss"),
    *(Case(131_072, 5, F32, loss=loss) for loss in ("lq_loss", "hard_svm", "smooth_svm_lq")),
    Case(1000, 5, F32, gradient=False),
    *(Case(n, 5, dtype, shards=2) for n in (1000, 4096, 131_072) for dtype in (F32, BF16)),
    *(Case(1000, k, F32, shards=2) for k in (1, 2, 10)),
    Case(1000, 5, F64, shards=2),
    Case(1000, 5, F32, loss="smooth_svm_lq", hits=True, shards=2),
    Case(1000, None, BF16, loss="lq_loss", shards=2),
    Case(1000, 5, F32, loss="hard_svm", shards=2),
]


def hard_rows(n: int, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + k)
    scores = torch.randn(_ROWS, n, generator=generator) * 2
    labels = torch.randint(1, n, (_ROWS,), generator=generator)
    scores[0].mul_(2).round_()  # ties
    scores[1, ::2] = -math.inf  # masked classes
    scores[2] = 1.0
    scores[3, :k] = 40.0
    scores[4, labels[4]] = -math.inf  # a masked label
    scores[5] += 100.0
    labels[6], scores[6, 3] = -100, math.nan  # ignored, whatever its scores are
    scores[7, n // 2] = math.nan
    scores[8, n - 1], labels[8] = math.inf, 0
    scores[9, labels[9]] = math.inf
    scores[10, labels[10]] = scores[10, 0] = scores[10].max()  # the label is tied
    for row, others in ((11, 0), (12, 1), (13, k - 1)):  # classes that are not masked
        scores[row], labels[row] = -math.inf, n - 1
        scores[row, :others] = torch.arange(others) / 2
        scores[row, n - 1] = 1.0
    labels[14:17] = torch.tensor([n, n + 3, -1])  # no class
    labels[17:21] = torch.tensor([0, n - 1, n // 2, min(512, n - 1)])  # 512: the first of a part
    return scores, labels


def outputs(
    run: Callable[..., None], case: Case, scores: Tensor, labels: Tensor, device: str
) -> dict[str, Tensor]:
    """The backend writes losses, gradient and hits."""
    n_rows, n = scores.shape
    kind = {"device": device, "dtype": accumulation_dtype(scores.dtype)}
    found = {"losses": torch.full((n_rows,), math.nan, **kind)}
    given = {"normalizer": torch.tensor(2.0, **kind)}
    # A row that is not aligned begins one score after the end of another.
    shift = 0 if case.aligned else 1
    rows = torch.zeros(n_rows, n + shift, device=device, dtype=scores.dtype)[:, shift:]
    rows.copy_(scores)
    if case.gradient:
        found["gradient"] = torch.full((n_rows, n), math.nan, device=device, dtype=scores.dtype)
    if case.hits:
        found["hits"] = torch.zeros(n_rows, 2, device=device, dtype=torch.bool)
        of_classes, of_rows = torch.linspace(0, 1, n, **kind), labels.to(**kind) / n
        given["margins"] = (of_classes[:, None] + of_rows).t()  # of other strides than the scores
        given["weight"] = torch.linspace(0.5, 2, n, **kind)
        given["sample_weight"] = 1 + of_rows
    run(Batch(rows, labels.to(device), **given), case.parameters, **found)
    return found


def faults(case: Case, repeats: int, device: str = "cuda") -> Iterator[str]:
    scores, labels = hard_rows(case.n * case.shards, case.k or 5)
    scores = scores.to(case.dtype)

    def run(*batch: Any, **found: Tensor) -> None:
        if case.shards == 1:
            launch.run(*batch, **found)
        else:
            in_shards.run([launch] * case.shards, *batch, [case.n] * case.shards, **found)

    def kernel(rows: slice = slice(None)) -> dict[str, Tensor]:
        return outputs(run, case, scores[rows], labels[rows], device)

    found = kernel()
    truth = outputs(eager.run, case, scores.double(), labels, "cpu")
    yield from _errors(case, found, truth)
    if not case.gradient:
        return
    for row, of_row in enumerate(found["gradient"].cpu().nan_to_num(7.0)):
        others = torch.arange(scores.shape[1]) != labels[row]
        values, counts = scores[row, others].unique(return_counts=True)
        for value in values[counts > 1]:
            if of_row[(scores[row] == value) & others].unique().numel() > 1:
                yield f"unequal gradients of equal scores in row {row}: {value}"
                break
    if any(_differ(kernel(), found) for _ in range(repeats)):
        yield "other bits in another run"
    for row in (2, 5, 23):
        rows = slice(row, row + 1)
        if _differ(kernel(rows), {name: x[rows] for name, x in found.items()}):
            yield f"other bits of row {row} alone"


def _errors(case: Case, found: dict[str, Tensor], truth: dict[str, Tensor]) -> Iterator[str]:
    rounding = 1e-10 if case.dtype == F64 else 2e-6
    of_gradient = torch.finfo(case.dtype).eps / 2 + 2 * rounding if case.order is None else 3e-3
    bounds = {"losses": rounding, "gradient": of_gradient, "hits": 0}
    for name, x in found.items():
        x, y = (tensor.cpu().double().reshape(_ROWS, -1) for tensor in (x, truth[name]))
        if not torch.equal(x.isnan(), y.isnan()):
            rows = (x.isnan() != y.isnan()).any(1).nonzero().flatten()
            yield f"{name}: NaN differs in rows {rows.tolist()}"
        error = torch.where(x == y, 0.0, (x - y).abs()).nan_to_num(0.0).amax(1)
        relative = error / (y.abs().nan_to_num(0.0).amax(1) + 1e-30)
        if not relative.amax() <= bounds[name]:
            yield f"{name} off by {float(relative.amax()):.2g} in row {int(relative.argmax())}"


def _differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """The result says whether any bit does."""
    pairs = ((one[name].contiguous(), other[name].contiguous()) for name in one)
    return any(not torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)


def main(given: Sequence[str] | None = None, device: str = "cuda") -> int:
    parser = Parser("tests.smoke", __doc__)
    parser.add_argument("-k", default="", help="only structures whose names match")
    runs = "runs that must agree (%(default)s)"
    parser.add_argument("--repeats", type=int, default=100, help=runs)
    arguments = parser.parse_args(given)
    failed = 0
    for case in parser.matching(STRUCTURES, arguments.k):
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

"""The errors of every implementation at every point, and over the adversarial rows of the tests."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from bench.accuracy.implementations import IMPLEMENTATIONS, KERNELS, Implementation, absent
from bench.accuracy.points import Point, all_points
from bench.accuracy.rows import Row, rows
from triton_topk.reference import exact_smooth_svm

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import accuracy
import accuracy_lq
import adversarial
import adversarial_lq

PARTS = ("loss", "gradient")
_SMOOTH = {  # classes, by k
    1: (13,), 2: (30,), 5: (6, 24, 100), 10: (11, 40), 16: (17, 64, 150), 20: (21, 25, 80), 50: (51, 120),
}  # fmt: skip
_LQ = {"eager": (2, 10, 100, 2000), "triton": (2, 10, 60)}  # classes

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """measured: a line for each part of what an implementation computes at a point.

    It has the point's coordinates, the largest `error` of its rows, relative (of a gradient to the row's largest
    entry) and infinite for NaN, infinity or an exception; what it `got` there, the `truth`, and `where` that is.
    """

    seed: int
    absent: dict[str, str]
    measured: pd.DataFrame
    adversarial: pd.DataFrame  # errors over the adversarial rows: of which backend, and in what


def bound(dtype: str) -> float:
    """An implementation is wrong where an error is larger: twice what the dtype's rounding alone may make it."""
    return max(1e-3, torch.finfo(getattr(torch, dtype)).eps)


def run(seed: int) -> Results:
    # Triton looks once, when it is imported; the eager backend does not care.
    os.environ["TRITON_INTERPRET"] = "1"
    missing = absent()
    backends = ("eager",) if KERNELS in missing else ("eager", "triton")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        adversarial = [
            pool.submit(adversarial_smooth, backend, k, n)
            for backend in backends
            for k, classes in _SMOOTH.items()
            for n in classes
            if backend == "eager" or IMPLEMENTATIONS[KERNELS].takes(Point(k))
        ]
        adversarial += [
            pool.submit(adversarial_of_lq, backend, n, q)
            for backend in backends
            for n in _LQ[backend]
            for q in adversarial_lq.QS
        ]
        longest_first = sorted(all_points(), key=lambda p: -p.n * p.k)
        points = [pool.submit(measure, point, seed, missing) for point in longest_first]
        done = as_completed([*adversarial, *points])
        for future in track(done, "Measuring", total=len(adversarial) + len(points)):
            future.result()
    found = (
        pd.DataFrame([record for future in futures for record in future.result()])
        for futures in (points, adversarial)
    )
    return Results(seed, missing, *found)


def measure(point: Point, seed: int, missing: Collection[str]) -> list[Record]:
    """The errors of every implementation that takes the point and is not missing."""
    found = rows(point, seed)
    truths = [truth(point, row) for row in found]
    return [
        {"implementation": name, "point": point, **asdict(point), "part": part, **worst}
        for name, implementation in IMPLEMENTATIONS.items()
        if found and implementation.takes(point) and name not in missing
        for part, worst in zip(PARTS, _worst(implementation, point, found, truths), strict=True)
    ]


def truth(point: Point, row: Row) -> tuple[float, Tensor]:
    """The exact loss, and the exact gradient (n,), in float64."""
    loss, gradient = exact_smooth_svm(
        row.scores.tolist(), row.label, point.k, tau=point.tau, margin=point.margin
    )
    return float(loss), torch.tensor([float(x) for x in gradient], dtype=torch.float64)


def _worst(
    implementation: Implementation,
    point: Point,
    found: list[Row],
    truths: list[tuple[float, Tensor]],
) -> tuple[Record, Record]:
    scores = torch.stack([row.scores for row in found])
    labels = torch.tensor([row.label for row in found])
    try:
        losses, gradients = implementation.run(scores, labels, point)
    except Exception as error:  # an implementation that raises is wrong, and the report says how
        words = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        failure = {"error": math.inf, "got": math.nan, "truth": math.nan, "where": words}
        return (failure | {"raised": True},) * 2
    # Below, a number has not all of its digits in this dtype.
    floor = 10 * torch.finfo(scores.dtype).tiny
    each = list(zip(found, truths, losses.tolist(), gradients.double(), strict=True))
    of_losses = [of_loss(row, t, loss, floor) for row, (t, _), loss, _ in each]
    of_gradients = [of_gradient(row, t, g, floor) for row, (_, t), _, g in each]
    return max(of_losses, key=_by_error), max(of_gradients, key=_by_error)


def _by_error(record: Record) -> float:
    return record["error"]


def of_loss(row: Row, truth: float, got: float, floor: float) -> Record:
    error = _relative(abs(got - truth), truth, floor)
    return _record(error, got, truth, f"label {row.place}")


def of_gradient(row: Row, truth: Tensor, got: Tensor, floor: float) -> Record:
    wrong = (got - truth).abs()
    entry = int(wrong.nan_to_num(math.inf).argmax())
    error = _relative(float(wrong[entry]), float(truth.abs().max()), floor)
    rank = int((row.scores > row.scores[entry]).sum()) + 1
    whose = "the label's entry" if entry == row.label else f"entry of rank {rank}"
    return _record(error, float(got[entry]), float(truth[entry]), f"{whose}, label {row.place}")


def _record(error: float, got: float, truth: float, where: str) -> Record:
    return {"error": error, "got": got, "truth": truth, "where": where, "raised": False}


def _relative(wrong: float, size: float, floor: float) -> float:
    """What is below the floor only has to stay there."""
    if not math.isfinite(wrong):
        return math.inf
    if size > floor:
        return wrong / size
    return 0.0 if wrong <= floor else math.inf


def adversarial_smooth(backend: str, k: int, n: int) -> list[Record]:
    cases = list(adversarial.cases(k, n))
    exact, taylor = (
        pd.DataFrame(accuracy.errors(cases, torch.float32, backend, order))
        for order in (None, 1 + k // 5)
    )
    found = {
        "loss": exact["loss"].max(),
        f"gradient, k {'<= 20' if k <= 20 else '= 50'}": exact["gradient"].max(),
    }
    if k in (5, 16):
        found[f"taylor, k = {k}"] = taylor["gradient"].max()
    return [{"backend": backend, "what": what, "error": error} for what, error in found.items()]


def adversarial_of_lq(backend: str, n: int, q: float) -> list[Record]:
    found = pd.DataFrame(accuracy_lq.errors(adversarial_lq.cases(n), q, torch.float32, backend))
    worst = found[["loss", "gradient", "entry"]].max().add_prefix("lq_loss: ")
    return [{"backend": backend, "what": what, "error": error} for what, error in worst.items()]

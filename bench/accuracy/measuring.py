"""Every implementation is measured at every point, and over the adversarial rows of the tests."""

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

from bench.accuracy.implementations import (
    EAGER,
    IMPLEMENTATIONS,
    KERNELS,
    NATIVE,
    Implementation,
    absent,
)
from bench.accuracy.points import Point, Row, all_points, rows
from bench.exact import exact_smooth_svm

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import accuracy
import accuracy_lq
import adversarial
import adversarial_lq

PARTS = ("loss", "gradient")
_SMOOTH = {  # classes, by k
    1: (13,), 2: (30,), 5: (6, 24, 100), 10: (11, 40), 16: (17, 64, 150), 20: (21, 25, 80), 50: (51, 120),
}  # fmt: skip
_OURS = {"eager": EAGER, "native": NATIVE, "triton": KERNELS}  # by backend
_LQ = {EAGER: (2, 10, 100, 2000), NATIVE: (2, 10, 100, 2000), KERNELS: (2, 10, 60)}  # classes

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """Each part of what an implementation computes at a point has a line in `measured`.

    It has the point's coordinates, the largest `error` of its rows, relative (of a gradient to the row's largest
    entry) and infinite for NaN, infinity or an exception, and whether it `raised` one.
    """

    seed: int
    absent: dict[str, str]
    measured: pd.DataFrame
    adversarial: pd.DataFrame  # errors over the adversarial rows: of which backend, and in what


def bound(dtype: str) -> float:
    """An implementation is wrong where an error is larger: twice what the dtype's rounding alone may make it."""
    return max(1e-3, torch.finfo(getattr(torch, dtype)).eps)


def run(seed: int) -> Results:
    # Triton looks once, when it is imported; the other backends do not care.
    os.environ["TRITON_INTERPRET"] = "1"
    missing = absent()
    ours = {backend: name for backend, name in _OURS.items() if name not in missing}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        adversarial = [
            pool.submit(adversarial_smooth, backend, k, n)
            for backend, name in ours.items()
            for k, classes in _SMOOTH.items()
            for n in classes
            if IMPLEMENTATIONS[name].takes(Point(k))
        ]
        adversarial += [
            pool.submit(adversarial_of_lq, backend, n, q)
            for backend, name in ours.items()
            for n in _LQ[name]
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
    """Return the errors of every implementation that takes the point and is not missing."""
    found = rows(point, seed)
    truths = list(zip(*(truth(point, row) for row in found), strict=True))
    return [
        {"implementation": name, "point": point, **asdict(point), "part": part, **record}
        for name, implementation in IMPLEMENTATIONS.items()
        if found and implementation.takes(point) and name not in missing
        for part, record in zip(PARTS, _errors(implementation, point, found, truths), strict=True)
    ]


def truth(point: Point, row: Row) -> tuple[Tensor, ...]:
    """Return the exact loss, and the exact gradient (n,), in float64."""
    loss, gradient = exact_smooth_svm(
        row.scores.tolist(), row.label, point.k, tau=point.tau, margin=point.margin
    )
    exact = (float(loss), [float(x) for x in gradient])
    return tuple(torch.tensor(x, dtype=torch.float64) for x in exact)


def _errors(
    implementation: Implementation,
    point: Point,
    found: list[Row],
    truths: list[tuple[Tensor, ...]],
) -> list[Record]:
    scores = torch.stack([row.scores for row in found])
    labels = torch.tensor([row.label for row in found])
    try:
        computed = implementation.run(scores, labels, point)
    except Exception:  # an implementation that raises is wrong, and the report counts how often
        return [{"error": math.inf, "raised": True}] * 2
    # Below, a number has not all of its digits in this dtype.
    floor = 10 * torch.finfo(scores.dtype).tiny
    return [
        {"error": largest_error(got, torch.stack(exact), floor), "raised": False}
        for got, exact in zip(computed, truths, strict=True)
    ]


def largest_error(got: Tensor, truth: Tensor, floor: float) -> float:
    """Return the error, relative to the largest entry of a row.  What is below the floor only has to stay there."""
    wrong, size = (x.reshape(len(x), -1).abs().amax(1) for x in (got.double() - truth, truth))
    below = torch.where(wrong <= floor, 0.0, math.inf)
    return float(
        torch.where(size > floor, wrong / size, below).nan_to_num(math.inf, math.inf).max()
    )


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

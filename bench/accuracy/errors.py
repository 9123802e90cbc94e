"""The errors of an implementation at a point."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.accuracy.implementations import IMPLEMENTATIONS, Implementation
from bench.accuracy.points import Point
from bench.accuracy.rows import Row, rows, truth

Part = Literal["loss", "gradient"]
PARTS: tuple[Part, ...] = ("loss", "gradient")


@dataclass(frozen=True)
class Worst:
    """The largest error over the rows of a point; infinite for NaN, infinity or an exception."""

    error: float
    got: float
    truth: float
    of: str


@dataclass(frozen=True)
class Measured:
    implementation: str
    point: Point
    loss: Worst  # relative
    gradient: Worst  # relative to the row's largest entry
    raised: bool = False

    def worst(self, part: Part) -> Worst:
        return self.loss if part == "loss" else self.gradient


def bound(dtype: str) -> float:
    """An implementation breaks where an error is beyond it: twice what the dtype's rounding alone may make it."""
    return max(1e-3, torch.finfo(getattr(torch, dtype)).eps)


def is_wrong(measured: Measured, part: Part) -> bool:
    return measured.worst(part).error > bound(measured.point.dtype)


def measure(point: Point, seed: int, absent: Collection[str]) -> list[Measured]:
    """The errors of every implementation that takes the point and is not absent."""
    found = rows(point, seed)
    if not found:
        return []
    truths = [truth(point, row) for row in found]
    return [
        _measure(implementation, point, found, truths)
        for implementation in IMPLEMENTATIONS.values()
        if implementation.takes(point) and implementation.name not in absent
    ]


def _measure(
    implementation: Implementation,
    point: Point,
    found: list[Row],
    truths: list[tuple[float, Tensor]],
) -> Measured:
    scores = torch.stack([row.scores for row in found])
    labels = torch.tensor([row.label for row in found])
    try:
        losses, gradients = implementation.run(scores, labels, point)
    except Exception as error:  # an implementation that raises breaks here, and the report says how
        words = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        failure = Worst(math.inf, math.nan, math.nan, words)
        return Measured(implementation.name, point, failure, failure, raised=True)
    # Below, a number has not all of its digits in this dtype.
    floor = 10 * torch.finfo(scores.dtype).tiny
    each = list(zip(found, truths, losses.tolist(), gradients.double(), strict=True))
    return Measured(
        implementation.name,
        point,
        max((of_loss(row, t, loss, floor) for row, (t, _), loss, _ in each), key=_by_error),
        max((of_gradient(row, t, g, floor) for row, (_, t), _, g in each), key=_by_error),
    )


def _by_error(worst: Worst) -> float:
    return worst.error


def of_loss(row: Row, truth: float, got: float, floor: float) -> Worst:
    return Worst(_relative(abs(got - truth), truth, floor), got, truth, f"label {row.place}")


def of_gradient(row: Row, truth: Tensor, got: Tensor, floor: float) -> Worst:
    wrong = (got - truth).abs()
    entry = int(wrong.nan_to_num(math.inf).argmax())
    error = _relative(float(wrong[entry]), float(truth.abs().max()), floor)
    rank = int((row.scores > row.scores[entry]).sum()) + 1
    whose = "the label's entry" if entry == row.label else f"entry of rank {rank}"
    return Worst(error, float(got[entry]), float(truth[entry]), f"{whose}, label {row.place}")


def _relative(wrong: float, size: float, floor: float) -> float:
    """What is below the floor only has to stay there."""
    if not math.isfinite(wrong):
        return math.inf
    if size > floor:
        return wrong / size
    return 0.0 if wrong <= floor else math.inf

"""What a comparison of two commits says of a case, and of all of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NOTABLE = 1.03  # ratios nearer to 1 are not marked
SLOWER, UNKNOWN = 1, 125  # exit codes
# Sums in another order, and for the gradient a rounding to the other side; both relative.
LOSS_ROUNDING = 1e-4
GRADIENT_ROUNDING = {"float32": 1e-4, "bfloat16": 1e-2}


@dataclass(frozen=True)
class Timed:
    """Seconds of an iteration, in the pairs in which they were measured."""

    base: list[float]
    new: list[float]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the ratios NEW / BASE."""
        ratios = [new / base for base, new in zip(self.base, self.new, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, median, high


@dataclass(frozen=True)
class Lacking:
    what: str


@dataclass(frozen=True)
class Different:
    loss: float
    gradient: float


Outcome = Timed | Lacking | Different


def difference(base: Path, new: Path, dtype: str) -> Different | None:
    """Of the losses and gradients in two files, where it is more than rounding."""
    with np.load(base) as a, np.load(new) as b:
        found = Different(
            largest_difference(a["loss"], b["loss"]),
            largest_difference(a["gradient"], b["gradient"]),
        )
    # Not `>`, which NaN would pass.
    same = found.loss <= LOSS_ROUNDING and found.gradient <= GRADIENT_ROUNDING[dtype]
    return None if same else found


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Relative to the largest entry of a row."""
    a, b = np.atleast_1d(a, b)
    largest = np.maximum(abs(a), abs(b)).max(-1, keepdims=True)
    return float((abs(a - b) / np.where(largest == 0, 1, largest)).max())


def joined(rounds: list[Outcome]) -> Outcome:
    """The outcome of a case after several rounds: all its pairs, or the first reason not to time it."""
    timed = [outcome for outcome in rounds if isinstance(outcome, Timed)]
    if len(timed) < len(rounds):
        return next(outcome for outcome in rounds if not isinstance(outcome, Timed))
    return Timed([x for y in timed for x in y.base], [x for y in timed for x in y.new])


def verdict(outcome: Outcome, fail_above: float) -> str:
    match outcome:
        case Lacking(what):
            return what
        case Different(loss, gradient):
            return f"other results: loss {loss:.1e}, gradient {gradient:.1e}"
    low, _, high = outcome.quartiles
    if low > fail_above:
        return "too slow"
    if low > NOTABLE:
        return "slower"
    return "faster" if high < 1 / NOTABLE else ""


def exit_code(outcomes: list[Outcome], fail_above: float) -> int:
    timed = [outcome for outcome in outcomes if isinstance(outcome, Timed)]
    if any(outcome.quartiles[0] > fail_above for outcome in timed):
        return SLOWER
    if not timed or any(isinstance(outcome, Different) for outcome in outcomes):
        return UNKNOWN
    return 0

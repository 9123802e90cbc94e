"""Time of another implementation over time of ours, wherever both were measured at the same work."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from bench.implementations import IMPLEMENTATIONS
from bench.reporting.axes import Axis, Kind, Shape, series
from bench.reporting.markdown import marked, number
from bench.results import Measurement, Run

OURS = ("smooth_svm", "lq_loss")  # which the others are compared with


@dataclass(frozen=True)
class Pair:
    ours: Measurement
    other: Measurement

    @property
    def ratio(self) -> float:
        """Below 1: the other is faster."""
        return self.other.seconds / self.ours.seconds

    @property
    def steady(self) -> bool:
        return self.ours.steady and self.other.steady

    def __str__(self) -> str:
        return marked(number(self.ratio), self.steady)


def pairs(run: Run) -> list[Pair]:
    """At the same task; the other may have no k, ours only if the other has none."""
    others = defaultdict(list)
    for m in run.measurements:
        if not IMPLEMENTATIONS[m.cell.implementation].ours:
            others[m.cell.task].append(m)
    return [
        Pair(ours, other)
        for ours in run.measurements
        if ours.cell.implementation in OURS
        for other in others[ours.cell.task]
        if _has_k(ours) or not _has_k(other)
    ]


def ratios(run: Run, axis: Axis, kind: Kind, ours: str) -> dict[str, dict[Shape, Pair]]:
    """By the other implementation, where ours was measured at several shapes of the axis."""
    shapes = {m: shape for shape, m in series(run, axis, kind).get(ours, {}).items()}
    found: dict[str, dict[Shape, Pair]] = {name: {} for name in IMPLEMENTATIONS}
    for pair in pairs(run):
        if pair.ours in shapes:
            found[pair.other.cell.implementation][shapes[pair.ours]] = pair
    return {name: by_shape for name, by_shape in found.items() if by_shape}


def _has_k(m: Measurement) -> bool:
    return IMPLEMENTATIONS[m.cell.implementation].has_k

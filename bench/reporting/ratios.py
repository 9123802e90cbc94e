"""Time of another implementation over time of ours, wherever both were measured at the same work."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from bench.implementations import IMPLEMENTATIONS
from bench.reporting.axes import Axis, Kind, Shape, series
from bench.results import Cell, Measurement, Run

OURS = ("smooth_svm", "lq_loss")  # which the others are compared with


@dataclass(frozen=True)
class Pair:
    ours: Measurement
    other: Measurement

    @property
    def ratio(self) -> float:
        """Below 1: the other is faster."""
        return self.other.seconds / self.ours.seconds


def pairs(run: Run) -> list[Pair]:
    """At the same shape, dtype and work; the other may have no k, ours only if the other has none."""
    others = defaultdict(list)
    for m in run.measurements:
        if not IMPLEMENTATIONS[m.cell.implementation].ours:
            others[_but_for_k(m.cell)].append(m)
    return [
        Pair(ours, other)
        for ours in run.measurements
        if ours.cell.implementation in OURS
        for other in others[_but_for_k(ours.cell)]
        if other.cell.k in (ours.cell.k, None)
    ]


def ratios(run: Run, axis: Axis, kind: Kind, ours: str) -> dict[str, dict[Shape, Pair]]:
    """By the other implementation, where ours was measured at several shapes of the axis."""
    shapes = {m: shape for shape, m in series(run, axis, kind).get(ours, {}).items()}
    found: dict[str, dict[Shape, Pair]] = {name: {} for name in IMPLEMENTATIONS}
    for pair in pairs(run):
        if pair.ours in shapes:
            found[pair.other.cell.implementation][shapes[pair.ours]] = pair
    return {name: by_shape for name, by_shape in found.items() if by_shape}


def _but_for_k(cell: Cell) -> tuple[int, int, str, str]:
    return cell.n, cell.batch, cell.dtype, cell.work

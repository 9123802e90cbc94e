"""Where implementations break on the walks away from the middle of the grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.accuracy.errors import PARTS, Measured, Part, Worst, is_wrong
from bench.accuracy.points import BASE, Point, Walk


@dataclass(frozen=True)
class Break:
    """The first point of a walk at which the loss or the gradient is wrong."""

    walk: Walk
    value: str
    part: Part
    worst: Worst


class Walks:
    def __init__(self, measured: Iterable[Measured]) -> None:
        self._found = {(m.implementation, m.point): m for m in measured}

    def walked(self, implementation: str) -> bool:
        """It was measured where the walks start."""
        return (implementation, BASE) in self._found

    def values(self, implementation: str, walk: Walk) -> list[str]:
        """At which it was measured."""
        return [value for value, _ in self._steps(implementation, walk)]

    def breaks(self, implementation: str, walk: Walk) -> list[Break]:
        """Of the loss and of the gradient, as far as they do; at the value "start" if already there."""
        found = (self._first(implementation, walk, part) for part in PARTS)
        return [first for first in found if first is not None]

    def _first(self, implementation: str, walk: Walk, part: Part) -> Break | None:
        for value, measured in self._steps(implementation, walk):
            if is_wrong(measured, part):
                return Break(walk, value, part, measured.worst(part))
        return None

    def _steps(self, implementation: str, walk: Walk) -> Iterator[tuple[str, Measured]]:
        steps: list[tuple[str, Point]] = [("start", BASE)]
        steps += zip(walk.values, walk.points, strict=True)
        for value, point in steps:
            if (implementation, point) in self._found:
                yield value, self._found[implementation, point]

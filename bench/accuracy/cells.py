"""Choosing among measurements, and how the worst of them is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.accuracy.errors import PARTS, Measured, Part, Worst, is_wrong
from bench.accuracy.implementations import IMPLEMENTATIONS
from bench.accuracy.points import GRID, Point
from bench.report.markdown import table

NONE = "-"

_IN_GRID = frozenset(GRID)


def in_grid(measured: Iterable[Measured], keep: Callable[[Point], bool]) -> list[Measured]:
    return [m for m in measured if m.point in _IN_GRID and keep(m.point)]


def by_implementation(measured: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Those that were measured, in the order of IMPLEMENTATIONS."""
    found: dict[str, list[Measured]] = {name: [] for name in IMPLEMENTATIONS}
    for m in measured:
        found[m.implementation].append(m)
    return {name: here for name, here in found.items() if here}


def worst(measured: Iterable[Measured], part: Part) -> tuple[Point, Worst]:
    """Where the largest error is, and what it is."""
    found = max(measured, key=lambda m: m.worst(part).error)
    return found.point, found.worst(part)


def error(x: float) -> str:
    return f"{x:.0e}" if math.isfinite(x) else "fails"


def cell(measured: Sequence[Measured], parts: Sequence[Part] = PARTS) -> str:
    """The largest errors of the parts, bold where one of them is wrong."""
    if not measured:
        return NONE
    text = " / ".join(error(worst(measured, part)[1].error) for part in parts)
    wrong = any(is_wrong(m, part) for m in measured for part in parts)
    return f"**{text}**" if wrong else text


def errors_table(
    measured: Iterable[Measured],
    columns: Mapping[str, Callable[[Point], bool]],
    write: Callable[[Sequence[Measured]], str],
) -> str:
    """A row for each implementation, a column for each choice of points."""
    rows = [
        [name, *(write([m for m in found if keep(m.point)]) for keep in columns.values())]
        for name, found in by_implementation(measured).items()
    ]
    return table(["", *columns], rows)

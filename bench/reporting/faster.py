"""Where another implementation is faster than ours: the first thing a page says."""

from __future__ import annotations

from collections import defaultdict

from bench.reporting.axes import Axis, Shape, axes, kinds, place
from bench.reporting.markdown import table
from bench.reporting.ratios import OURS, Pair, pairs, ratios
from bench.reporting.tables import row
from bench.results import Run

SLOWER = "·"


def section(run: Run) -> str:
    every = pairs(run)
    if not every:
        return "No other implementation was measured."
    lost = [pair for pair in every if pair.ratio < 1]
    parts = [
        f"The other is faster in {len(lost)} of {len(every)} comparisons at one shape, dtype and "
        "work. A ratio is the time of the other over that of ours.",
        _summary(every),
    ]
    shown: set[Pair] = set()
    for axis in axes(run):
        lines = _lines(run, axis)
        if lines:
            rows = [[*names, *row(axis, by_shape, _cell)] for names, by_shape in lines]
            headers = ["ours", "other", "dtype", "work", *axis.headers]
            title = f"Ratios below 1 along {axis} ({SLOWER}: ours is not slower):"
            parts += [title, table(headers, rows, text_columns=4)]
            shown.update(*(by_shape.values() for _, by_shape in lines))
    if elsewhere := [pair for pair in lost if pair not in shown]:
        headers = ["ours", "other", "ratio", "at"]
        parts += ["On no axis:", table(headers, map(_line, elsewhere), text_columns=4)]
    return "\n\n".join(parts)


def _lines(run: Run, axis: Axis) -> list[tuple[tuple[str, ...], dict[Shape, Pair]]]:
    """Names and ratios of what is faster anywhere along an axis."""
    return [
        ((ours, other, *kind), by_shape)
        for ours in OURS
        for kind in kinds(run)
        for other, by_shape in ratios(run, axis, kind, ours).items()
        if any(pair.ratio < 1 for pair in by_shape.values())
    ]


def _summary(every: list[Pair]) -> str:
    by_names = defaultdict(list)
    for pair in every:
        by_names[pair.ours.cell.implementation, pair.other.cell.implementation].append(pair)
    rows = []
    for found in by_names.values():
        ours, other, ratio, at = _line(min(found, key=lambda pair: pair.ratio))
        faster = f"{sum(pair.ratio < 1 for pair in found)} of {len(found)}"
        rows.append([ours, other, faster, ratio, at])
    return table(["ours", "other", "other faster in", "lowest ratio", "at"], rows, text_columns=5)


def _line(pair: Pair) -> list[str]:
    cell = pair.ours.cell
    at = f"{place(cell)}, {cell.dtype}, {cell.work}"
    return [cell.implementation, pair.other.cell.implementation, str(pair), at]


def _cell(pair: Pair) -> str:
    return str(pair) if pair.ratio < 1 else SLOWER

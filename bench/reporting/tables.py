"""Tables of what was measured along an axis: a row for an implementation, a column for a shape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from bench.reporting.axes import Axis, Kind, Shape, axes, kinds, on_no_axis, place, series
from bench.reporting.markdown import folded, marked, number, percent, size, table
from bench.reporting.ratios import OURS, ratios
from bench.results import Measurement, Run

T = TypeVar("T")


def times(run: Run, variable: str) -> str:
    return _values(run, (variable,), "ms per call", milliseconds)


def other_times(run: Run) -> str:
    rows = [
        [
            m.cell.implementation,
            place(m.cell),
            m.cell.dtype,
            m.cell.work,
            milliseconds(m),
        ]
        for m in on_no_axis(run)
    ]
    headers = ["implementation", "shape", "dtype", "work", "ms per call"]
    return table(headers, rows, text_columns=4) if rows else ""


def bandwidth(run: Run) -> str:
    def value(m: Measurement) -> str:
        return f"{number(m.cell.traffic / m.seconds / 1e9)} ({share(m)})"

    return _values(run, ("n",), "GB/s", value)


def kernels(run: Run) -> str:
    def value(m: Measurement) -> str:
        if m.kernel is None:
            return ""
        return f"{marked(number(m.kernel * 1e6), m.steady)} ({kernel_share(m)})"

    return _values(run, ("n", "k"), "µs", value)


def memory(run: Run) -> str:
    def value(m: Measurement) -> str:
        return "" if m.extra_memory is None else size(m.extra_memory)

    return _values(run, ("n",), "", value)


def compared(run: Run) -> str:
    """Times of the others over those of ours."""

    def rows(axis: Axis, kind: Kind) -> list[list[str]]:
        return [[ours, *rest] for ours in OURS for rest in ratio_rows(run, axis, kind, ours)]

    return by_axis(run, {"n", "k", "batch"}, ["ours", "other"], rows)


def by_axis(
    run: Run,
    variables: Collection[str],
    columns: list[str],
    rows: Callable[[Axis, Kind], list[list[str]]],
) -> str:
    """Tables of each axis; the columns are those before its shapes."""
    found = (
        by_kind(f"Along {axis}", {k: rows(axis, k) for k in kinds(run)}, columns, axis.headers)
        for axis in axes(run)
        if axis.variable in variables
    )
    return "\n\n".join(filter(None, found))


def by_kind(
    title: str, rows: Mapping[Kind, list[list[str]]], columns: list[str], headers: list[str]
) -> str:
    """A table of the first kind that has rows, and one, folded away, of the others."""
    found = {kind: lines for kind, lines in rows.items() if lines}
    parts = []
    if found:
        main = next(iter(found))
        body = table([*columns, *headers], found.pop(main), text_columns=len(columns))
        parts.append(f"{title}, {main}:\n\n{body}")
    if found:
        body = table(
            [*columns, "dtype", "work", *headers],
            (
                [*line[: len(columns)], *kind, *line[len(columns) :]]
                for kind, lines in found.items()
                for line in lines
            ),
            text_columns=len(columns) + 2,
        )
        parts.append(folded(f"{title}, the other dtypes and work", body))
    return "\n\n".join(parts)


def row(axis: Axis, points: Mapping[Shape, T], value: Callable[[T], str]) -> list[str]:
    return [value(points[shape]) if shape in points else "" for shape in axis.shapes]


def ratio_rows(run: Run, axis: Axis, kind: Kind, ours: str) -> list[list[str]]:
    return [
        [name, *row(axis, by_shape, str)]
        for name, by_shape in ratios(run, axis, kind, ours).items()
    ]


def milliseconds(m: Measurement) -> str:
    return marked(number(m.seconds * 1e3), m.steady)


def microseconds(m: Measurement) -> str:
    return marked(number(m.seconds * 1e6), m.steady)


def share(m: Measurement) -> str:
    return marked(percent(m.share), m.steady)


def kernel_share(m: Measurement) -> str:
    return "" if m.kernel_share is None else marked(percent(m.kernel_share), m.steady)


def _values(
    run: Run, variables: Collection[str], unit: str, value: Callable[[Measurement], str]
) -> str:
    def rows(axis: Axis, kind: Kind) -> list[list[str]]:
        lines = {name: row(axis, s, value) for name, s in series(run, axis, kind).items()}
        return [[name, *cells] for name, cells in lines.items() if any(cells)]

    return by_axis(run, variables, [unit], rows)

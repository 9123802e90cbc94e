"""Sections of a page that are not tables of times; empty where the run has nothing for them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from bench.implementations import IMPLEMENTATIONS
from bench.reporting.axes import DTYPES, Kind, axes, kinds, place, series
from bench.reporting.fit import exponents
from bench.reporting.markdown import between, number, percent, size, table
from bench.reporting.ratios import OURS
from bench.reporting.tables import (
    by_kind,
    kernel_share,
    microseconds,
    milliseconds,
    ratio_rows,
    row,
    share,
)
from bench.results import Cell, LeftOut, Measurement, Run

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")


def provenance(run: Run) -> str:
    machine = run.machine
    cache = machine.get("l2_bytes")
    versions = machine.get("versions", {}).items()
    clocks = Counter(m.clock for m in run.measurements)
    known = {
        "device": f"{machine['name']} ({machine['kind']})",
        "driver": machine.get("driver"),
        "L2 cache": cache and size(cache),
        "threads": machine.get("threads"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions),
        "commit": run.commit,
        "date": run.date,
        "seed": machine.get("seed"),
        "measurements by clock": ", ".join(f"{clock}: {n}" for clock, n in clocks.items()),
    }
    rows = [[name, str(value)] for name, value in known.items() if value not in (None, "")]
    return table(["", ""], rows, text_columns=2)


def busy(run: Run) -> str:
    """How far the numbers can be trusted."""
    load, others = (run.machine.get(key) for key in ("load_before", "others"))
    known = [
        load is not None and f"the load average before the run was {load:.1f}",
        others is not None and f"other processes took {percent(others)} of all CPU time during it",
    ]
    said = " and ".join(filter(None, known)) or "how busy the machine was is not known"
    count = sum(not m.steady for m in run.measurements)
    return f"{said[0].upper()}{said[1:]}; {count} of {len(run.measurements)} measurements stayed unsteady and have a ?."


def headline(run: Run) -> str:
    """Along n, of the main kind: times of ours, and under each those of others over it."""
    along_n = next((axis for axis in axes(run) if axis.variable == "n"), None)
    if along_n is None:
        return ""
    kind = kinds(run)[0]
    found = series(run, along_n, kind)
    rows = []
    for ours in (name for name in OURS if name in found):
        rows.append([f"**{ours}, ms**", *row(along_n, found[ours], milliseconds)])
        rows.append(["share of copy bandwidth", *row(along_n, found[ours], share)])
        alone = row(along_n, found[ours], kernel_share)
        rows += [["the same, kernel alone", *alone]] if any(alone) else []
        rows += ratio_rows(run, along_n, kind, ours)
    text = (
        f"{kind}, {along_n.fixed}. Below each of our losses, the time of others over its "
        "own: under 1, the other is faster."
    )
    return f"{text}\n\n{table(['n', *along_n.headers], rows)}" if rows else ""


def growth(run: Run) -> str:
    """Fitted exponents along n and along k."""
    along = [axis for axis in axes(run) if axis.variable in ("n", "k")]
    columns = [column for axis in along for column in (str(axis), "upper half")]

    def rows(kind: Kind) -> list[list[str]]:
        fits = [
            {
                name: exponents(axis, points)
                for name, points in series(run, axis, kind).items()
                if axis.variable == "n" or IMPLEMENTATIONS[name].has_k
            }
            for axis in along
        ]
        found = {
            name: [fit for of_axis in fits for fit in of_axis.get(name, (None, None))]
            for name in IMPLEMENTATIONS
        }
        return [
            [name, *("" if fit is None else str(fit) for fit in of_name)]
            for name, of_name in found.items()
            if any(of_name)
        ]

    return by_kind("Exponents", {kind: rows(kind) for kind in kinds(run)}, [""], columns)


def errors(run: Run) -> str:
    """The worst that each implementation showed in a dtype, and where."""
    grouped = defaultdict(list)
    for m in run.measurements:
        grouped[m.cell.implementation, m.cell.dtype].append(m)
    rows = [
        [name, dtype, *_worst(measured, "loss_error"), *_worst(measured, "gradient_error")]
        for name in IMPLEMENTATIONS
        for dtype in DTYPES
        if (measured := grouped[name, dtype])
    ]
    headers = ["implementation", "dtype", "loss", "at", "gradient", "at"]
    return table(headers, rows, text_columns=len(headers)) if rows else ""


def host(run: Run) -> str:
    """Host time of a call beside the device's along the batch."""
    along = [axis for axis in axes(run) if axis.variable == "batch"]
    device = [(axis, series(run, axis, kinds(run)[0])) for axis in along]
    rows = [
        [name, number(seconds * 1e6)]
        + [x for axis, found in device for x in row(axis, found.get(name, {}), microseconds)]
        for name, seconds in run.host.items()
    ]
    headers = [f"device, batch {batch}" for axis in along for batch in axis.headers]
    return table(["µs", "host", *headers], rows) if rows else ""


def left_out(items: Iterable[LeftOut]) -> str:
    rows = [
        [
            name,
            why,
            str(len(cells)),
            between(cell.n for cell in cells),
            between(cell.k for cell in cells),
            between(cell.batch for cell in cells),
            ", ".join(sorted({cell.dtype for cell in cells})),
        ]
        for name, why, cells in by_reason(items)
    ]
    headers = ["implementation", "why", "cells", "n", "k", "batch", "dtypes"]
    return table(headers, rows, text_columns=len(headers)) if rows else ""


def by_reason(items: Iterable[LeftOut]) -> Iterator[tuple[str, str, list[Cell]]]:
    """Implementations, why they were left out, and where."""
    grouped = defaultdict(list)
    for item in items:
        grouped[item.cell.implementation, NUMBER.sub("#", item.why)].append(item)
    for (name, _), alike in grouped.items():
        yield name, _common([item.why for item in alike]), [item.cell for item in alike]


def _worst(measured: list[Measurement], error: str) -> tuple[str, str]:
    known = [m for m in measured if getattr(m, error) is not None]
    if not known:
        return "not known", ""
    worst = max(known, key=lambda m: getattr(m, error))
    return f"{getattr(worst, error):.1e}", place(worst.cell)


def _common(texts: list[str]) -> str:
    """A text for all, which differ in their numbers: from the lowest to the highest."""
    columns = zip(*(NUMBER.findall(text) for text in texts), strict=True)
    spans = (_span(sorted(set(column), key=float)) for column in columns)
    return NUMBER.sub(lambda _: next(spans), texts[0])


def _span(numbers: list[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"

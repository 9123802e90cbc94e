"""Figures of a run: time against n and k, the share of the copy bandwidth, the ratio to others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Scale
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, NullLocator

from bench.implementations import IMPLEMENTATIONS
from bench.reporting.axes import Axis, Kind, Series, axes, kinds, measured, series
from bench.reporting.labels import PALETTE, SIZE, label_ends
from bench.reporting.ratios import OURS, ratios
from bench.results import Measurement, Run

Lines = dict[str, dict[int, "Point"]]  # by name and x

WIDTH, HEIGHT = 8.0, 4.6  # inches: at the README's width 10 points are 14 pixels
PROPORTIONAL, COPY = "time ∝ k", "copy"
FEW_DECADES = 2.3  # of an axis; more have no room for ticks between powers of ten


class Point(NamedTuple):
    y: float
    steady: bool = True


class Style(NamedTuple):
    colour: str
    marker: str = ""
    width: float = 0.9
    line: str = ":"


def _styles() -> dict[str, Style]:
    """Ours are whole lines, others dashed; among either no two have one colour."""
    styles = {name: Style("#888888") for name in (PROPORTIONAL, COPY)}
    looks = zip(IMPLEMENTATIONS.items(), cycle(PALETTE), cycle("osD^v<>h"), strict=False)
    for (name, i), colour, marker in looks:
        width, line = 2.2 if name in OURS else 1.2, "-" if i.ours else "--"
        styles[name] = Style(colour, marker, width, line)
    return styles


STYLES = _styles()


def drawings(run: Run) -> dict[str, Callable[[], Figure]]:
    """What draws each figure that the run has data for, by its name."""
    found: dict[str, Callable[[], Figure]] = {}
    for dtype in dict.fromkeys(kind.dtype for kind in kinds(run)):
        kind = next(kind for kind in kinds(run) if kind.dtype == dtype)
        along = [axis for axis in axes(run) if series(run, axis, kind)]
        for axis in (axis for axis in along if axis.variable == "n"):
            found[f"n-{dtype}"] = partial(against_n, run, axis, kind)
            if run.machine["kind"] != "cpu":  # whose caches may hold the scores
                found[f"copy-{dtype}"] = partial(share_of_copy, run, axis, kind)
            if any(ratios(run, axis, kind, ours) for ours in OURS):
                found[f"ratios-{dtype}"] = partial(ratio_to_others, run, axis, kind)
        if along_k := [axis for axis in along if axis.variable == "k"]:
            found[f"k-{dtype}"] = partial(against_k, run, along_k, kind)
    return found


def against_n(run: Run, axis: Axis, kind: Kind) -> Figure:
    """A level line is linear in n."""
    lines = _lines(axis, series(run, axis, kind), _nanoseconds)
    return _figure(
        f"{kind}, {axis.fixed}", {"": lines}, "number of classes n", "time per score (ns)"
    )


def against_k(run: Run, along_k: Sequence[Axis], kind: Kind) -> Figure:
    panels = {}
    for axis in along_k:
        lines = _lines(axis, measured(run, axis, kind), _nanoseconds)
        lowest = min(point.y for points in lines.values() for point in points.values())
        ks = [axis.value(shape) for shape in axis.shapes]
        panels[axis.fixed] = lines | {PROPORTIONAL: {k: Point(lowest * k / ks[0]) for k in ks}}
    return _figure(str(kind), panels, "k", "time per score (ns)")


def share_of_copy(run: Run, axis: Axis, kind: Kind) -> Figure:
    """Of ours and of what has no k; on a linear scale the others could not be told from 0."""
    lines = {
        name: points
        for name, points in _lines(axis, series(run, axis, kind), lambda m: 100 * m.share).items()
        if IMPLEMENTATIONS[name].ours or not IMPLEMENTATIONS[name].has_k
    }
    lines[COPY] = {axis.value(shape): Point(100.0) for shape in axis.shapes}
    title = f"{kind}, {axis.fixed}"
    return _figure(
        title, {"": lines}, "number of classes n", "share of copy bandwidth (%)", yscale="linear"
    )


def ratio_to_others(run: Run, axis: Axis, kind: Kind) -> Figure:
    panels = {}
    for ours in OURS:
        lines = {
            name: {
                axis.value(shape): Point(pair.ratio, pair.steady) for shape, pair in pairs.items()
            }
            for name, pairs in ratios(run, axis, kind, ours).items()
        }
        if lines:
            lines[ours] = {axis.value(shape): Point(1.0) for shape in axis.shapes}
            panels[f"time over that of {ours}"] = lines
    return _figure(f"{kind}, {axis.fixed}", panels, "number of classes n", "ratio of times")


def _lines(axis: Axis, found: Series, value: Callable[[Measurement], float]) -> Lines:
    return {
        name: {axis.value(shape): Point(value(m), m.steady) for shape, m in points.items()}
        for name, points in found.items()
    }


def _nanoseconds(m: Measurement) -> float:
    return m.seconds / (m.cell.batch * m.cell.n) * 1e9


def _figure(
    title: str, panels: Mapping[str, Lines], xlabel: str, ylabel: str, yscale: str = "log"
) -> Figure:
    """Panels by their titles, side by side, with one scale."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    if not all(
        p.steady for lines in panels.values() for line in lines.values() for p in line.values()
    ):
        title += " (hollow: unsteady)"
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", weight="bold")
    figure.supxlabel(xlabel, fontsize="medium")
    figure.supylabel(ylabel, fontsize="medium")
    subplots = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    drawn = list(zip(subplots[0], panels.items(), strict=True))
    for ax, (own_title, lines) in drawn:
        ax.set_title(own_title, loc="left", fontsize="medium")
        ax.set_xscale("log")
        ax.set_yscale(yscale)
        ax.grid(axis="y", alpha=0.3)
        ax.tick_params(labelsize=SIZE)
        ax.spines[["top", "right"]].set_visible(False)
        for name, points in lines.items():
            _plot(ax, points, STYLES[name])
    for ax, (_, lines) in drawn:  # now that all is in view
        _ticks(ax.xaxis, EngFormatter(sep=""))  # 100k: of long numbers there is no room for many
        if yscale == "linear":
            ax.set_ylim(bottom=0)
        else:
            _ticks(ax.yaxis, FuncFormatter(lambda y, _: f"{y:,.0f}" if y >= 1 else f"{y:g}"))
        ends = {name: (max(points), points[max(points)].y) for name, points in lines.items()}
        label_ends(ax, ends, {name: STYLES[name].colour for name in lines})
    return figure


def _plot(ax: Axes, points: Mapping[int, Point], style: Style) -> None:
    ax.plot(
        list(points),
        [point.y for point in points.values()],
        style.line,
        color=style.colour,
        marker=style.marker,
        markersize=4,
        linewidth=style.width,
    )
    hollow = [(x, point.y) for x, point in points.items() if not point.steady]
    if hollow:
        ax.scatter(
            *zip(*hollow, strict=True),
            s=16,
            marker=style.marker,
            facecolors="white",
            edgecolors=style.colour,
            zorder=3,
        )


def _ticks(scale: Scale, formatter: Formatter) -> None:
    low, high = scale.get_view_interval()
    few = np.log10(high / low) < FEW_DECADES
    scale.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    scale.set_major_formatter(formatter)
    scale.set_minor_locator(NullLocator())

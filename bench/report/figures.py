"""Figures show time against n and k, the share of the copy bandwidth, and the ratio to others."""

from itertools import cycle
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, StrMethodFormatter

from bench.implementations import IMPLEMENTATIONS
from bench.report.runs import Run
from bench.report.tables import BASES, axes, ratios

# Okabe and Ito's, for colour-blind readers too, without yellow, which is too light on white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000", "#d55e00", "#56b4e9")
# Ours are whole lines, others dashed; among either no two that one device can have are of one colour.
STYLES = {
    name: {"color": colour, "marker": marker, "linestyle": "-" if each.ours else "--"}
    for (name, each), colour, marker in zip(
        IMPLEMENTATIONS.items(), cycle(PALETTE), cycle("osD^v<>h"), strict=False
    )
}
_GUIDE = {"color": "#888888", "linestyle": ":"}
_TIME = "time per score (ns)"


class Drawing(NamedTuple):
    title: str
    panels: dict[str, pd.DataFrame]  # by their titles; their rows have a line and a y
    variable: str  # "n" or "k"
    ylabel: str
    level: float | None = None  # to compare with


def drawings(run: Run) -> dict[str, Drawing]:
    """A run has data for these figures, by name; they are of the work that matters most in each dtype."""
    found = {}
    for dtype, rows in run.measured.groupby("dtype", observed=True):
        title = f"{dtype}, {rows.work.min()}"
        rows = rows[rows.work == rows.work.min()]
        rows = rows.assign(line=rows.implementation, y=1e9 * rows.seconds / (rows.batch * rows.n))
        along_k = {axis.fixed: axis.rows for axis in axes(rows) if axis.variable == "k"}
        for axis in (axis for axis in axes(rows) if axis.variable == "n"):
            title_n = f"{title}, {axis.fixed}"
            found[f"n-{dtype}"] = Drawing(title_n, {"": axis.rows}, "n", _TIME)
            if run.has_bandwidth:
                shares = {"": axis.rows.assign(y=100 * axis.rows.share)}
                found[f"copy-{dtype}"] = Drawing(title_n, shares, "n", "% of copy bandwidth", 100)
            pairs = {
                f"time over that of {base}": same.assign(line=same.other, y=same.ratio)
                for base, same in ratios(axis.rows).groupby("implementation", observed=True)
            }
            if pairs:
                found[f"ratios-{dtype}"] = Drawing(title_n, pairs, "n", "ratio of times", 1)
        if along_k:
            found[f"k-{dtype}"] = Drawing(title, along_k, "k", _TIME)
    return found


def draw(drawing: Drawing) -> Figure:
    """Panels are side by side, with one scale; the legend is in the order of the lines' ends."""
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    steady = all(rows.steady.all() for rows in drawing.panels.values())
    title = drawing.title + ("" if steady else " (hollow: unsteady)")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", weight="bold")
    figure.supxlabel({"n": "number of classes n", "k": "k"}[drawing.variable], fontsize="medium")
    figure.supylabel(drawing.ylabel, fontsize="medium")
    shape = (1, len(drawing.panels))
    panels = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)[0]
    ends = {}
    for ax, (title, rows) in zip(panels, drawing.panels.items(), strict=True):
        ax.set_title(title, loc="left", fontsize="medium")
        ax.set(xscale="log", yscale="log")
        ax.grid(axis="y", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        for name, points in rows.sort_values(drawing.variable).groupby("line", observed=True):
            style = {"markersize": 4, "linewidth": 2.2 if name in BASES else 1.2} | STYLES[name]
            (line,) = ax.plot(points[drawing.variable], points.y, label=name, **style)
            ends[name] = (points.y.iloc[-1], line)
            hollow = {"markerfacecolor": "white", "linestyle": ""}
            unsteady = points[~points.steady]
            ax.plot(unsteady[drawing.variable], unsteady.y, **(style | hollow))
        if drawing.level is not None:
            ax.axhline(drawing.level, **_GUIDE)
        if drawing.variable == "k":
            k = np.unique(rows.k)
            ax.plot(k, rows.y.min() * k / k[0], **_GUIDE)  # proportional
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    for scale in (ax.xaxis, ax.yaxis):  # which all panels share
        low, high = scale.get_view_interval()
        scale.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
        scale.set_minor_locator(NullLocator())
    lines = [line for _, line in sorted(ends.values(), key=lambda end: -end[0])]
    figure.legend(handles=lines, loc="outside right center", fontsize=8.5, frameon=False)
    return figure

"""The figure of the report: where the gradient of each implementation goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from bench.accuracy.cells import by_implementation, in_grid
from bench.accuracy.errors import Measured, bound
from bench.accuracy.implementations import (
    AUTHORS,
    AUTHORS_TOP_1,
    CROSS_ENTROPY,
    DIVIDE_AND_CONQUER,
    EAGER,
    KERNELS,
    LQ_EAGER,
    LQ_KERNELS,
    SUMMATION,
    TAYLOR,
)
from bench.accuracy.labels import PALETTE, label_ends
from bench.accuracy.points import CROSS_ENTROPY as CROSS_ENTROPY_POINTS

# Kernels are dashed.
_BLUE, _ORANGE, _GREEN, _PINK, _BLACK, _RED, _SKY = PALETTE
_COLOURS = {
    EAGER: _BLUE,
    KERNELS: _BLUE,
    TAYLOR: _SKY,
    LQ_EAGER: _GREEN,
    LQ_KERNELS: _GREEN,
    DIVIDE_AND_CONQUER: _RED,
    SUMMATION: _ORANGE,
    AUTHORS: _PINK,
    AUTHORS_TOP_1: _PINK,
    CROSS_ENTROPY: _BLACK,
}
_DASHED = (KERNELS, LQ_KERNELS)
_K = 5
_LOWEST, _HIGHEST = 1e-9, 3.0  # what is beyond is drawn there


def draw(measured: Iterable[Measured]) -> Figure:
    found = [m for m in measured if m.point.dtype == "float32"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    smooth = in_grid(found, lambda p: p.k == _K and p.n > _K + 1)
    names = (EAGER, KERNELS, TAYLOR, DIVIDE_AND_CONQUER, SUMMATION, AUTHORS)
    _panel(left, smooth, names, lambda m: float(f"{m.point.spread / m.point.tau:.3g}"))
    left.set(
        title=f"smooth top-k SVM, k = {_K}", xlabel="spread of the scores over tau", xscale="log"
    )
    points = frozenset(CROSS_ENTROPY_POINTS)
    leading = [m for m in found if m.point in points and m.point.n == 1000 and m.point.lead >= 0]
    names = (EAGER, KERNELS, LQ_EAGER, LQ_KERNELS, AUTHORS_TOP_1, CROSS_ENTROPY)
    _panel(right, leading, names, lambda m: m.point.lead)
    right.set(title="cross-entropy", xlabel="lead of the label over the other scores")
    left.set_ylabel("error of the gradient over its largest entry")
    return figure


def _panel(
    ax: Axes,
    measured: Iterable[Measured],
    names: Iterable[str],
    x_of: Callable[[Measured], float],
) -> None:
    """The largest error of each at each x; what fails is a cross at the top."""
    by_name = by_implementation(measured)
    ends = {}
    for name in (name for name in names if name in by_name):
        line: dict[float, float] = {}
        for m in by_name[name]:
            line[x_of(m)] = max(line.get(x_of(m), 0.0), m.gradient.error)
        xs = sorted(line)
        ys = [min(max(line[x], _LOWEST), _HIGHEST) for x in xs]
        dashes = "--" if name in _DASHED else "-"
        ax.plot(xs, ys, dashes, color=_COLOURS[name], marker="o", markersize=3, linewidth=1.5)
        failed = [x for x in xs if not math.isfinite(line[x])]
        ax.plot(failed, [_HIGHEST] * len(failed), "x", color=_COLOURS[name], markersize=8)
        ends[name] = (xs[-1], ys[-1])
    ax.axhline(bound("float32"), color="#888888", linewidth=0.8, linestyle=":")
    at = (1.0, bound("float32"))
    ax.annotate("wrong", at, xycoords=("axes fraction", "data"), ha="right", va="bottom")
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=12))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.spines[["top", "right"]].set_visible(False)
    label_ends(ax, ends, _COLOURS)

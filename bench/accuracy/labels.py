"""Names at the ends of lines instead of a legend, and the colours of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

# Okabe and Ito's, for colour-blind readers too, without yellow, which is too light on white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000", "#d55e00", "#56b4e9")
SIZE = 8.5  # points
DISTANCE = 1.25  # of one label to the next, in their size
RIGHT = 1.06  # of the axes, in their width


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights from 0 to 1 in the same order, moved as little (least squares) as keeps them `gap` apart.

    More than there is room for go beyond 1.
    """
    order = np.argsort(heights, stable=True)
    steps = gap * np.arange(len(heights))
    apart = isotonic_regression(np.take(heights, order) - steps).x
    placed = np.empty(len(heights))
    placed[order] = np.clip(apart, 0, max(0, 1 - steps[-1])) + steps
    return placed.tolist()


def label_ends(
    ax: Axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str]
) -> None:
    """Each name to the right of the axes, as high as the end of its line where there is room."""
    ax.autoscale_view()
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [to_axes.transform(end)[1] for end in ends.values()]
    gap = DISTANCE * SIZE / 72 * ax.figure.dpi / ax.bbox.height
    for (name, end), height in zip(ends.items(), spread(heights, gap), strict=True):
        ax.annotate(
            name,
            end,
            (RIGHT, height),
            textcoords="axes fraction",
            color=colours[name],
            fontsize=SIZE,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colours[name],
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0, 0.5),
                "alpha": 0.6,
            },
        )

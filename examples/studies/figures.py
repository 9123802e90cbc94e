"""Lines with their names beside them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from sklearn.isotonic import isotonic_regression


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in the same order, moved as little (least squares) as keeps them `gap` apart."""
    order = np.argsort(heights, stable=True)
    steps = gap * np.arange(len(heights))
    placed = np.empty(len(heights))
    placed[order] = isotonic_regression(np.take(heights, order) - steps) + steps
    return placed.tolist()


def name_lines(ax: Axes, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Write each line's name to the right of `ax`, as near to the line's end as the others allow."""
    gap = 0.075 * np.diff(ax.get_ylim()).item()
    for name, height in zip(ends, spread(list(ends.values()), gap), strict=True):
        ax.annotate(
            name,
            (1.03, height),
            xycoords=("axes fraction", "data"),
            color=colours[name],
            va="center",
            annotation_clip=False,
        )

"""Figures: accuracy against noise and against the size of the training set."""

from collections.abc import Mapping, Sequence
from itertools import product

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from studies.figures import name_lines
from torch import Tensor

from label_noise.losses import LOSSES
from label_noise.noise import CLASS_DEPENDENT, UNIFORM
from label_noise.runs import NO_NOISE, Condition, compared
from label_noise.selection import REGIMES, TOPS, Result

# Okabe and Ito's palette without yellow, which is too light for lines and text on white.
STYLES = dict(
    zip(
        LOSSES,
        [
            ("#000000", "o"),
            ("#e69f00", "v"),
            ("#0072b2", "s"),
            ("#56b4e9", "D"),
            ("#d55e00", "^"),
            ("#009e73", "P"),
        ],
        strict=True,
    )
)


HIGHEST = 101  # percent; of a bar above it there is nothing to see


def plot(
    ax: Axes, percent: Sequence[float], lines: Mapping[str, Tensor], *, labelled: bool
) -> None:
    """One line per loss from accuracies [points, seeds]; its name at its right end."""
    for loss, accuracies in lines.items():
        colour, marker = STYLES[loss]
        mean = accuracies.mean(-1)
        ax.errorbar(
            percent,
            mean,
            accuracies.std(-1, correction=min(1, accuracies.shape[-1] - 1)),
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            elinewidth=0.8,
        )
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xticks(percent)
    ax.grid(axis="y", alpha=0.3)
    # auto=None: the other panels of the row share these limits and may yet widen them.
    ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST), auto=None)
    if labelled:
        ends = {loss: float(accuracies[-1].mean()) for loss, accuracies in lines.items()}
        name_lines(ax, ends, {loss: STYLES[loss][0] for loss in lines})


def accuracy_over(results: Mapping[Result, Tensor], images: str) -> str:
    """Say in words what the points and bars of a figure show."""
    seeds = len(next(iter(results.values())))
    spread = f"mean ± 1 s.d., {seeds} seeds" if seeds > 1 else "1 seed"
    return f"accuracy on {images} (%), {spread}"


def against_noise(
    results: Mapping[Result, Tensor], task: str, title: str, top: int, rates: Sequence[float]
) -> Figure:
    """A panel for each regime (rows) and kind of noise (columns)."""
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    kinds = (UNIFORM, CLASS_DEPENDENT)
    axes = figure.subplots(len(REGIMES), len(kinds), sharex=True, sharey="row")
    for (regime, kind), ax in zip(product(REGIMES, kinds), axes.flat, strict=True):
        conditions = [Condition(task, kind if rate else NO_NOISE, rate) for rate in rates]
        lines = {
            loss: torch.stack([results[Result(c, loss, top, regime)] for c in conditions])
            for loss in LOSSES
        }
        plot(ax, [100 * rate for rate in rates], lines, labelled=kind == kinds[-1])
        ax.set_title(f"{kind} noise, {regime}", loc="left", fontsize="medium")
    figure.suptitle(title)
    figure.supxlabel("training labels redrawn (%)")
    figure.supylabel(accuracy_over(results, "clean test images"))
    return figure


def against_fraction(
    results: Mapping[Result, Tensor],
    tasks: Mapping[str, Sequence[str]],
    fractions: Sequence[float],
) -> Figure:
    """A panel for each of the titles per task (columns: top-1, top-k), tuned."""
    figure = Figure(figsize=(8, 3.2 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), len(TOPS), sharex=True, squeeze=False)
    for row, (task, titles) in zip(axes, tasks.items(), strict=True):
        for ax, top, title in zip(row, TOPS, titles, strict=True):
            conditions = [Condition(task, fraction=fraction) for fraction in fractions]
            lines = {
                loss: torch.stack([results[Result(c, loss, top, "tuned")] for c in conditions])
                for loss in compared(conditions[0])
            }
            ax.set_xscale("log")
            plot(ax, [100 * fraction for fraction in fractions], lines, labelled=top == TOPS[-1])
            ax.set_xticks([100 * f for f in fractions], [f"{100 * f:g}" for f in fractions])
            ax.minorticks_off()
            ax.set_title(title, loc="left", fontsize="medium")
    figure.supxlabel("part of the training set used (%, logarithmic)")
    figure.supylabel(accuracy_over(results, "test images"))
    return figure

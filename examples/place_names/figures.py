"""Figures of the studies."""

from collections.abc import Iterable, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from studies.figures import name_lines
from torch import Tensor

from place_names.losses import CROSS_ENTROPY, SCALED, SMOOTH, TAUS
from place_names.study import Results, Study, Trial, on_test_names
from place_names.tables import name
from place_names.training import TOPS

# Okabe and Ito's palette.
COLOURS = {CROSS_ENTROPY: "#000000", SCALED: "#0072b2", SMOOTH: "#d55e00"}
TOP_COLOURS = dict(zip(TOPS, ("#56b4e9", "#d55e00", "#009e73"), strict=True))
TOP_5 = TOPS.index(5)
DIFFERENCES = (-10, -3, -1, 0, 1, 3)


def standard_error(accuracies: Tensor) -> Tensor:
    """Over seeds, of accuracies [seeds, ...]; 0 for one seed."""
    seeds = len(accuracies)
    return accuracies.std(0, correction=min(1, seeds - 1)) / seeds**0.5


def plain(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)


def differences(results: Results, study: Study, seeds: int) -> Figure:
    """A panel for each condition: how far each tuned loss is from the first, in every accuracy."""
    tuned = [trial for trial in study.trials if any(trial.decays)]
    conditions = list(dict.fromkeys(trial.condition for trial in tuned))
    losses = list(dict.fromkeys(trial.loss for trial in tuned))[1:]
    figure = Figure(figsize=(max(6.4, 2.6 + 2.2 * len(conditions)), 3.4), layout="constrained")
    axes = figure.subplots(1, len(conditions), sharex=True, sharey=True, squeeze=False).flat
    for ax, condition in zip(axes, conditions, strict=True):
        for trial in tuned:
            if trial.condition != condition or trial.loss not in losses:
                continue
            theirs = on_test_names(results, study.baseline(trial), seeds)
            difference = on_test_names(results, trial, seeds) - theirs
            for column, (k, colour) in enumerate(TOP_COLOURS.items()):
                ax.errorbar(
                    difference[:, column].mean(),
                    losses.index(trial.loss) + 0.22 * (column - 1),
                    xerr=standard_error(difference)[column],
                    fmt="o",
                    markersize=4,
                    color=colour,
                    label=f"top-{k}" if trial.loss == losses[0] else None,
                )
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(losses)), losses)
        # Linear to a point on either side, logarithmic beyond: small and large differences show.
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xticks(DIFFERENCES, [f"{points:+g}" if points else "0" for points in DIFFERENCES])
        ax.minorticks_off()
        ax.grid(axis="x", alpha=0.3)
        plain(ax, name(condition, study))
    axes[0].invert_yaxis()
    axes[0].legend(loc="best", fontsize="small")
    figure.supxlabel(
        f"accuracy on new names less that of {study.trials[0].loss} "
        f"(points, logarithmic beyond 1; ± 1 s.e. of {seeds} seeds)",
        fontsize="medium",
    )
    return figure


def draw_line(
    ax: Axes, results: Results, xs: Iterable[float], trials: Sequence[Trial], loss: str, seeds: int
) -> float:
    """Top-5 accuracies of a loss over `xs`, a trial each; returns the last one."""
    accuracies = torch.stack([on_test_names(results, t, seeds)[:, TOP_5] for t in trials], 1)
    means = accuracies.mean(0)
    ax.errorbar(
        list(xs),
        means,
        standard_error(accuracies),
        color=COLOURS[loss],
        marker="o",
        markersize=4,
        linewidth=1.3,
    )
    return float(means[-1])


def logarithmic(seeds: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.set_xscale("log")
    ax.grid(axis="y", alpha=0.3)
    ax.set_ylabel(f"top-5 accuracy (%, ± 1 s.e., {seeds} seeds)")
    return figure, ax


def mark(ax: Axes, xs: Iterable[float]) -> None:
    ax.set_xticks(list(xs), [f"{x:g}" for x in xs])
    ax.minorticks_off()


def against_rate(results: Results, study: Study, seeds: int) -> Figure:
    """Top-5 accuracy against the learning rate, and what is reached with all settings chosen."""
    figure, ax = logarithmic(seeds)
    ends = {}
    for loss, colour in COLOURS.items():
        own = [trial for trial in study.trials if trial.loss == loss]
        fixed = [trial for trial in own if len(trial.lrs) == 1]
        rates = [trial.lrs[0] for trial in fixed]
        ends[loss] = draw_line(ax, results, rates, fixed, loss, seeds)
        for trial in own:
            if len(trial.lrs) > 1:
                best = on_test_names(results, trial, seeds)[:, TOP_5].mean()
                ax.axhline(float(best), color=colour, linestyle=":", linewidth=1)
    mark(ax, rates)
    name_lines(ax, ends, COLOURS)
    ax.set_xlabel("learning rate; for a loss of scale s, in units of the root of s")
    tuned = any(len(trial.lrs) > 1 for trial in study.trials)
    plain(ax, "without weight decay" + (" (dotted: settings chosen)" if tuned else ""))
    return figure


def against_tau(results: Results, study: Study, seeds: int) -> Figure:
    """Top-5 accuracy against tau, with cross-entropy's as a level line."""
    figure, ax = logarithmic(seeds)
    first, *others = study.trials
    level = float(on_test_names(results, first, seeds)[:, TOP_5].mean())
    ax.axhline(level, color=COLOURS[first.loss], linewidth=1.3)
    ends = {first.loss: level}
    for loss in (SCALED, SMOOTH):
        own = {tau: name for (of, tau), name in TAUS.items() if of == loss}
        trials = [trial for trial in others if trial.loss in own.values()]
        ends[loss] = draw_line(ax, results, own, trials, loss, seeds)
    mark(ax, own)
    name_lines(ax, ends, COLOURS)
    ax.set_xlabel("tau")
    plain(ax, "settings chosen at each tau")
    return figure


FIGURES = {
    "Losses": (differences, "Difference of accuracy to cross-entropy by loss"),
    "Label noise": (differences, "Difference of accuracy to cross-entropy by loss and label noise"),
    "Learning rate": (against_rate, "Top-5 accuracy against the learning rate by loss"),
    "tau": (against_tau, "Top-5 accuracy against tau by loss"),
    "Training to the end": (
        against_rate,
        "Top-5 accuracy against the learning rate by loss, trained to the end on noisy labels",
    ),
}

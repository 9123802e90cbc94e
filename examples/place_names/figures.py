"""Figures of the studies."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from studies.figures import name_lines

from place_names.losses import CROSS_ENTROPY, SCALED, SMOOTH, TAUS
from place_names.study import Results, Study, Trial, mean_and_error, on_test_names
from place_names.tables import TOP_5, name
from place_names.training import TOPS

# Okabe and Ito's palette.
COLOURS = {CROSS_ENTROPY: "#000000", SCALED: "#0072b2", SMOOTH: "#d55e00"}
TOP_COLOURS = dict(zip(TOPS, ("#56b4e9", "#d55e00", "#009e73"), strict=True))
DIFFERENCES = (-10, -3, -1, 0, 1, 3)
TUNED = "6 epochs at a falling rate, settings chosen"


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
                mean, error = mean_and_error(difference[:, column])
                ax.errorbar(
                    mean,
                    losses.index(trial.loss) + 0.22 * (column - 1),
                    xerr=error,
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


def draw_lines(
    results: Results,
    lines: Mapping[str, Mapping[float, Trial]],
    levels: Mapping[str, Trial],
    seeds: int,
) -> Axes:
    """Draw top-5 accuracies: a line through each loss's trials, and a dotted level for others."""
    ax = Figure(figsize=(6.4, 3.6), layout="constrained").subplots()
    ax.set_xscale("log")
    ends = {}
    for loss, trial in levels.items():
        ends[loss] = float(on_test_names(results, trial, seeds)[:, TOP_5].mean())
        ax.axhline(ends[loss], color=COLOURS[loss], linestyle=":", linewidth=1)
    for loss, trials in lines.items():
        accuracies = [on_test_names(results, trial, seeds)[:, TOP_5] for trial in trials.values()]
        means, errors = zip(*(mean_and_error(values) for values in accuracies), strict=True)
        ax.errorbar(
            list(trials),
            means,
            errors,
            color=COLOURS[loss],
            marker="o",
            markersize=4,
            linewidth=1.3,
        )
        ends[loss] = means[-1]
        ax.set_xticks(list(trials), [f"{x:g}" for x in trials])
    ax.minorticks_off()
    ax.grid(axis="y", alpha=0.3)
    ax.set_ylabel(f"top-5 accuracy (%, ± 1 s.e., {seeds} seeds)")
    name_lines(ax, ends, COLOURS)
    return ax


def against_rate(results: Results, study: Study, seeds: int) -> Figure:
    """Top-5 accuracy against the learning rate, and what is reached with all settings chosen."""
    tuned = {trial.loss: trial for trial in study.trials if len(trial.lrs) > 1}
    lines = {
        loss: {t.lrs[0]: t for t in study.trials if t.loss == loss and len(t.lrs) == 1}
        for loss in COLOURS
    }
    ax = draw_lines(results, lines, tuned, seeds)
    ax.set_xlabel("learning rate; for a loss of scale s, in units of the root of s")
    plain(ax, "without weight decay" + (f" (dotted: {TUNED})" if tuned else ""))
    return ax.figure


def against_tau(results: Results, study: Study, seeds: int) -> Figure:
    """Top-5 accuracy against tau, with cross-entropy's as a level line."""
    trials = {trial.loss: trial for trial in study.trials}
    lines = {
        loss: {tau: trials[name] for (of, tau), name in TAUS.items() if of == loss}
        for loss in (SCALED, SMOOTH)
    }
    ax = draw_lines(results, lines, {CROSS_ENTROPY: trials[CROSS_ENTROPY]}, seeds)
    ax.set_xlabel("tau")
    plain(ax, "settings chosen at each tau")
    return ax.figure


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

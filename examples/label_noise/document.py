"""The report: what was run, tables and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from studies.document import Document
from torch import Tensor

from label_noise import figures, report
from label_noise.images import Task as ImageTask
from label_noise.losses import MIX, TAU, TRUNCATION, Q
from label_noise.presets import ImageRecipe, Recipe
from label_noise.runs import limited, noisy
from label_noise.selection import REGIMES, TOPS, Result
from label_noise.small_tasks import TRAIN_IMAGES, VALIDATION_IMAGES
from label_noise.small_tasks import Task as SmallTask


def describe(recipes: Sequence[Recipe]) -> str:
    first = recipes[0]
    pruning = f"pruning after {first.prune_from} and every {first.prune_every}"
    if isinstance(first, ImageRecipe):
        return (
            f"ResNet-18, SGD with momentum {first.momentum}, weight decay {first.decay:g}, batches "
            f"of {first.batch}, learning rate {first.lr:g} divided by 10 after epochs "
            f"{first.milestones}, {first.length} epochs, {pruning} with the best network so far; "
            f"{first.validation:.0%} of the training images are the noisy validation split."
        )
    grid = ", ".join(f"({recipe.lr:g}, {recipe.decay:g})" for recipe in recipes)
    return (
        f"One hidden layer of {first.hidden}, AdamW, batches of {first.batch}, {first.length} "
        f"updates, an evaluation every {first.evaluate_every}, {pruning} with the current network; "
        f"learning rate and weight decay from {grid}, the last being the one of *to the end*."
    )


def sizes(task: SmallTask | ImageTask) -> str:
    if isinstance(task, ImageTask):
        return ""
    train, validation, test = task.sizes
    return (
        f"{train} training, {validation} validation and {test} test samples, made of "
        f"{TRAIN_IMAGES}, {VALIDATION_IMAGES} and the other images. "
    )


def add_noise(
    document: Document,
    results: Mapping[Result, Tensor],
    name: str,
    task: SmallTask | ImageTask,
    rates: Sequence[float],
) -> None:
    """Tables and figures of one task with the whole training set."""
    conditions = noisy(name, rates)
    document.add(report.verdict_table(results, conditions, task.top))
    for top, k in zip(TOPS, (1, task.top), strict=True):
        title = f"{task.title}: top-{k} accuracy"
        figure = figures.against_noise(results, name, title, top, sorted(rates))
        document.add(f"### {title}")
        document.draw(figure, f"{name}-top-{k}", f"{title} against label noise by loss")
        for regime in REGIMES:
            table = report.noise_table(results, conditions, top, regime)
            document.add(f"Top-{k}, {regime}:", table)


def add_limited(
    document: Document,
    results: Mapping[Result, Tensor],
    tasks: Mapping[str, SmallTask | ImageTask],
    fractions: Sequence[float],
) -> None:
    """Cross-entropy against the smooth top-k SVM with a part of the training set."""
    titles = {
        name: [f"{task.title}: top-{k}" for k in (1, task.top)] for name, task in tasks.items()
    }
    figure = figures.against_fraction(results, titles, sorted(fractions))
    document.add(
        "## Limited data",
        "Part of the training set, no noise; the validation split is whole, as in the top-k paper.",
    )
    document.draw(figure, "limited", "accuracy against the part of the training set, tuned")
    for name, task in tasks.items():
        table = report.limited_table(results, limited(name, fractions), task.top)
        document.add(f"{task.title}:", table)


def write(
    results: Mapping[Result, Tensor],
    tasks: Mapping[str, SmallTask | ImageTask],
    recipes: Mapping[str, Sequence[Recipe]],
    *,
    rates: Sequence[float],
    fractions: Sequence[float],
    seeds: int,
    out: Path,
    name: str,
) -> None:
    """Write the report and its figures into the directory `out`."""
    document = Document(out, name, "Label noise", "examples/label_noise.py")
    document.add(
        "## What was run",
        f"{seeds} seeds: each has its own split, noise and initial weights, the same for every loss. "
        "With the probability of the column a training or validation label is redrawn, the old one "
        "included: uniform noise from all classes, class-dependent noise from a few. Test labels are "
        f"clean. Lq: q = {Q}; MAE: q = 1; truncated Lq: t = {TRUNCATION}; smooth SVM: k as in top-k "
        f"accuracy, tau = {TAU:g}; joint: {MIX:g} smooth SVM + {1 - MIX:g} Lq.",
        report.LEGEND,
    )
    for task_name, task in tasks.items():
        document.add(f"## {task.title}", sizes(task) + describe(recipes[task_name]))
        add_noise(document, results, task_name, task, rates)
    if fractions:
        add_limited(document, results, tasks, fractions)
    document.write()

"""Tables of a study in Markdown."""

from collections.abc import Sequence

import torch
from rich import box
from rich.table import Table
from studies.document import to_markdown
from studies.significance import MARKS, SIGNIFICANT, sign_of_difference
from torch import Tensor

from place_names.names import TASKS
from place_names.study import Results, Study, Trial, mean_and_error, on_test_names
from place_names.training import TOPS, Condition

TOP_5 = TOPS.index(5)

LEGEND = f"""\
Accuracies are percent of test pairs, a name with one of its classes: mean ± standard error over the seeds.
Each seed has its own split of the names, noise and initial weights, the same for every loss. Noise is the
share of labels that are redrawn, for training and validation, from all classes or from those of the same
country or continent; some draws give the old label. Learning rate and weight decay are those of the highest
top-5 accuracy on the first seed's validation names. *top-1 alone* is the top-1 accuracy if top-1 accuracy
chooses them.

A difference is taken to the first loss of the same condition and the same settings to choose from, seed by
seed. ↑ and ↓: it is significant by a paired t-test at p < {SIGNIFICANT}; about one test in a hundred is so where
no difference exists. A difference without an arrow may be chance. Two seeds share a tenth of their test names
and a part of their training names, so that errors are a little larger than they are given, and most of the
training names where all are used."""

PARTS = {
    "task": lambda task: TASKS[task].title,
    "fraction": lambda fraction: f"{100 * fraction:g} % of the training pairs",
    "noise": lambda noise: f"{100 * noise:g} % noise",
    "grouped": lambda grouped: "noise inside groups" if grouped else "noise from all classes",
    "width": lambda width: f"width {width}",
    "epochs": lambda epochs: f"{epochs} epochs",
    "constant": lambda constant: "constant learning rate" if constant else "falling learning rate",
}


def apart(study: Study) -> list[str]:
    """The parts of a condition that are not the same in all of a study."""
    conditions = {trial.condition for trial in study.trials}
    return [part for part in PARTS if len({getattr(c, part) for c in conditions}) > 1]


def in_words(condition: Condition, parts: Sequence[str]) -> str:
    return ", ".join(PARTS[part](getattr(condition, part)) for part in parts)


def setting(study: Study) -> str:
    same = [part for part in PARTS if part not in apart(study)]
    text = in_words(study.trials[0].condition, same)
    tried = sorted({len(trial.tried()) for trial in study.trials})
    words = f"{text}; settings tried for each row: {' or '.join(map(str, tried))}."
    return words[0].upper() + words[1:]


def name(condition: Condition, study: Study) -> str:
    """Name the parts of the condition that differ in its study."""
    return in_words(condition, apart(study))


def told_of(values: Tensor, sign: str = "") -> str:
    """Mean ± standard error of values [seeds]."""
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.1f}" + (f" ± {error:.1f}" if len(values) > 1 else "")


def against(ours: Tensor, theirs: Tensor) -> str:
    if torch.equal(ours, theirs):
        return ""
    return told_of(ours - theirs, "+") + MARKS[sign_of_difference(ours, theirs)]


def row(results: Results, study: Study, trial: Trial, seeds: int) -> dict[str, str]:
    """Cells of a trial by the names of their columns."""
    accuracies, top_1 = (on_test_names(results, t, seeds) for t in (trial, trial.by_top_1()))
    baseline = study.baseline(trial)
    theirs, their_top_1 = (
        on_test_names(results, t, seeds) for t in (baseline, baseline.by_top_1())
    )
    recipe = trial.chosen(results).recipe
    of_condition = {"condition": name(trial.condition, study)} if apart(study) else {}
    return of_condition | {
        "loss": trial.loss,
        "learning rate": f"{recipe.lr:.2g}",
        "decay": f"{recipe.decay:.2g}" if any(trial.decays) else "none",
        **{f"top-{k}": told_of(values) for k, values in zip(TOPS, accuracies.T, strict=True)},
        "top-5 difference": against(accuracies[:, TOP_5], theirs[:, TOP_5]),
        "top-1 alone": told_of(top_1[:, 0]),
        "top-1 difference": against(top_1[:, 0], their_top_1[:, 0]),
    }


def tabulate(results: Results, study: Study, seeds: int) -> str:
    rows = [row(results, study, trial, seeds) for trial in study.trials]
    table = Table(*rows[0], box=box.MARKDOWN)
    for cells in rows:
        table.add_row(*cells.values())
    return to_markdown(table)

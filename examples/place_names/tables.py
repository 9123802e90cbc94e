"""Tables of a study in Markdown."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from studies.document import to_markdown
from studies.significance import MARKS, SIGNIFICANT, sign_of_difference
from torch import Tensor

from place_names.names import TASKS
from place_names.study import Results, Study, Trial, on_test_names
from place_names.training import TOPS, Condition

LEGEND = f"""\
Top-1, top-5 and top-10 accuracies on test names in percent, mean ± standard error over the seeds; every
seed has its own split of the names, noise and initial weights, the same for every loss. The learning
rate and weight decay are those of the highest top-5 accuracy on the validation names of the first
seed, whose labels are as noisy as the training names'; *top-1 alone* is the top-1 accuracy if top-1
accuracy chooses. The difference is that of top-5 accuracy to the first loss of the same condition. ↑
and ↓: it is significant by a paired t-test at p < {SIGNIFICANT}; a difference without an arrow is none. Of
all that are tested, one in a hundred may pass by chance."""

PARTS = {
    "task": lambda task: TASKS[task].title,
    "fraction": lambda fraction: f"{100 * fraction:g} % of the names",
    "noise": lambda noise: f"{100 * noise:g} % noise",
    "grouped": lambda grouped: "noise in groups" if grouped else "noise everywhere",
    "width": lambda width: f"width {width}",
    "epochs": lambda epochs: f"{epochs} epochs",
    "constant": lambda constant: "constant learning rate" if constant else "falling learning rate",
}


def told(study: Study) -> tuple[list[str], list[str]]:
    """The parts of a condition that are the same in all of a study, and those that are not."""
    values = {part: {getattr(trial.condition, part) for trial in study.trials} for part in PARTS}
    return [p for p in PARTS if len(values[p]) == 1], [p for p in PARTS if len(values[p]) > 1]


def in_words(condition: Condition, parts: Sequence[str]) -> str:
    return ", ".join(PARTS[part](getattr(condition, part)) for part in parts)


def setting(study: Study) -> str:
    same, _ = told(study)
    text = in_words(study.trials[0].condition, same)
    tried = sorted({len(trial.tried()) for trial in study.trials})
    words = f"{text}; settings tried for each row: {' or '.join(map(str, tried))}."
    return words[0].upper() + words[1:]


def name(condition: Condition, study: Study) -> str:
    """Name the parts of the condition that differ in its study."""
    return in_words(condition, told(study)[1])


def mean(accuracies: Tensor, sign: str = "") -> str:
    """Mean ± standard error of values [seeds]."""
    text = f"{accuracies.mean():{sign}.1f}"
    if len(accuracies) > 1:
        text += f" ± {accuracies.std() / len(accuracies) ** 0.5:.1f}"
    return text


def against(ours: Tensor, theirs: Tensor) -> str:
    return mean(ours - theirs, "+") + MARKS[sign_of_difference(ours, theirs)]


def row(results: Results, study: Study, trial: Trial, seeds: int) -> dict[str, str]:
    """Cells of a trial by the names of their columns."""
    baseline = study.baseline(trial)
    accuracies = on_test_names(results, trial, seeds)
    top_5 = TOPS.index(5)
    difference = ""
    if trial != baseline:
        theirs = on_test_names(results, baseline, seeds)
        difference = against(accuracies[:, top_5], theirs[:, top_5])
    recipe = trial.chosen(results).recipe
    condition = {"condition": name(trial.condition, study)} if told(study)[1] else {}
    return condition | {
        "loss": trial.loss,
        "learning rate": f"{recipe.lr:.2g}",
        "decay": f"{recipe.decay:.2g}" if any(trial.decays) else "none",
        **{f"top-{k}": mean(column) for k, column in zip(TOPS, accuracies.T, strict=True)},
        "difference": difference,
        "top-1 alone": mean(on_test_names(results, trial.by_top_1(), seeds)[:, 0]),
    }


def tabulate(results: Results, study: Study, seeds: int) -> str:
    rows = [row(results, study, trial, seeds) for trial in study.trials]
    table = Table(*rows[0], box=box.MARKDOWN)
    for cells in rows:
        table.add_row(*cells.values())
    return to_markdown(table)

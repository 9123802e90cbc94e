"""A CSV file of every training behind a page."""

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from place_names.study import Results, Study
from place_names.training import TOPS, Condition

SPLITS = ("validation", "test")


def write(results: Results, studies: Sequence[Study], seeds: int, path: Path) -> None:
    """A row has all that a training depends on, then its accuracies in percent."""
    accuracies = [f"{split} top-{k}" for split, k in product(SPLITS, TOPS)]
    runs = [run for study in studies for run in (*study.tried(), *study.best(results, seeds))]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*Condition._fields, "loss", "lr", "decay", "seed", *accuracies])
        for run in dict.fromkeys(runs):
            of_run = [f"{value:.3f}" for value in results[run].flatten().tolist()]
            recipe = [f"{setting:.6g}" for setting in run.recipe]
            rows.writerow([*run.condition, run.loss, *recipe, run.seed, *of_run])

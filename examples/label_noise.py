"""Losses against label noise, and with little data.

Trains networks with cross-entropy, the mean absolute error, the generalised cross-entropy Lq, its
truncated form with pruning, the smooth top-k SVM and the sum of Lq and smooth SVM: on scikit-learn's
digits and on pairs of them by default, less than half an hour on two cores, or on image files that
you have (`--data cifar10 --root DIR`), with the papers' recipe. Writes tables and figures to
build/reports/label-noise.md. Finished runs are kept: start a killed command again and it goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from label_noise import document, images, presets, runs, side_by_side, small_tasks
from label_noise.cache import Cache
from label_noise.selection import collect
from rich.progress import Progress
from studies.processes import in_processes

TASKS = small_tasks.TASKS | images.TASKS
DEFAULT = list(small_tasks.TASKS)


def train_small(missing: Sequence[runs.Run], cache: Cache, workers: int) -> None:
    with Progress() as progress:
        bar = progress.add_task("digits", total=len(missing))
        for run, accuracies in in_processes(side_by_side.train, missing, workers):
            cache[run] = accuracies
            progress.advance(bar)


def train_images(missing: Sequence[runs.Run], cache: Cache) -> None:
    with Progress() as progress:
        for number, run in enumerate(missing, 1):
            title = f"{number}/{len(missing)} {run.loss}, {run.condition.noise} noise"
            bar = progress.add_task(title, total=run.recipe.length)
            checkpoint = cache.checkpoint(run)
            for accuracies in images.train(run, checkpoint):
                progress.update(bar, completed=len(accuracies))
            cache[run] = accuracies
            checkpoint.unlink()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=TASKS, default=DEFAULT)
    parser.add_argument("--root", type=Path, default=Path("data"), help="where image files are")
    parser.add_argument("--noise-rates", type=share, nargs="+", default=[0.0, 0.2, 0.4, 0.6])
    parser.add_argument("--fractions", type=share, nargs="*", default=[0.05, 0.1, 0.25, 1.0])
    parser.add_argument(
        "--seeds", type=positive, default=5, help="how many; 2 or more for a spread"
    )
    parser.add_argument(
        "--length", type=positive, help="of each training: updates (digits) or epochs (image files)"
    )
    parser.add_argument("--workers", type=positive, help="processes for the digits; one per core")
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    parser.add_argument("--cache", type=Path, help="of finished runs; OUT/.label-noise-cache")
    args = parser.parse_args(arguments)
    if 0 in args.fractions:
        parser.error("--fractions: expected more than 0")
    return args


def recipes_of(args: argparse.Namespace) -> dict[str, list[presets.Recipe]]:
    return {
        task: [presets.shortened(recipe, args.length) for recipe in presets.PRESETS[task]]
        for task in args.data
    }


def plan(args: argparse.Namespace) -> list[runs.Run]:
    planned = []
    for task, recipes in recipes_of(args).items():
        conditions = [*runs.noisy(task, args.noise_rates), *runs.limited(task, args.fractions)]
        if task in small_tasks.TASKS:
            planned += runs.plan(conditions, recipes, [tuple(range(args.seeds))])
        else:
            seeds = [(seed,) for seed in range(args.seeds)]
            planned += runs.plan(conditions, recipes, seeds, str(args.root.resolve()))
    return planned


def main() -> None:
    args = parse()
    planned = plan(args)
    cache = Cache(args.cache or args.out / ".label-noise-cache")
    missing = [run for run in planned if run not in cache]
    small = [run for run in missing if run.condition.task in small_tasks.TASKS]
    if small:
        train_small(small, cache, args.workers)
    train_images([run for run in missing if run not in small], cache)

    document.write(
        collect(planned, cache),
        {task: TASKS[task] for task in args.data},
        recipes_of(args),
        rates=args.noise_rates,
        fractions=args.fractions,
        seeds=args.seeds,
        out=args.out,
        name="label-noise" if args.data == DEFAULT else "-".join(["label-noise", *args.data]),
    )


if __name__ == "__main__":
    main()

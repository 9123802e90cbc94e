"""The trainings: every combination of task, noise, loss, recipe and seeds."""

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from label_noise.losses import CROSS_ENTROPY, LOSSES, SMOOTH_SVM
from label_noise.noise import CLASS_DEPENDENT, UNIFORM
from label_noise.presets import Recipe

NO_NOISE = "none"


class Condition(NamedTuple):
    """A problem that losses are tried on, with a `fraction` of the training set."""

    task: str
    noise: str = NO_NOISE
    rate: float = 0.0
    fraction: float = 1.0


class Run(NamedTuple):
    """One training, of one network per seed, and all that its result depends on."""

    condition: Condition
    loss: str
    recipe: Recipe
    seeds: tuple[int, ...]
    root: str = ""


def noisy(task: str, rates: Iterable[float]) -> list[Condition]:
    """Without noise the kinds of noise are the same, and it is run once."""
    return list(
        dict.fromkeys(
            Condition(task, kind if rate else NO_NOISE, rate)
            for kind, rate in product((UNIFORM, CLASS_DEPENDENT), sorted(rates))
        )
    )


def limited(task: str, fractions: Iterable[float]) -> list[Condition]:
    return [Condition(task, fraction=fraction) for fraction in sorted(fractions)]


def compared(condition: Condition) -> list[str]:
    """The losses that are compared on less than the whole training set are two."""
    return list(LOSSES) if condition.fraction == 1 else [CROSS_ENTROPY, SMOOTH_SVM]


def plan(
    conditions: Iterable[Condition],
    recipes: Iterable[Recipe],
    seeds: Iterable[tuple[int, ...]],
    root: str = "",
) -> list[Run]:
    recipes, seeds = list(recipes), list(seeds)
    return [
        Run(condition, loss, recipe, some, root)
        for condition in dict.fromkeys(conditions)
        for loss, recipe, some in product(compared(condition), recipes, seeds)
    ]

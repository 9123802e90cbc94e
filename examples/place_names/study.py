"""Settings to try for a loss under a condition, and the choice among them."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from place_names.losses import LOSSES
from place_names.training import TOPS, Condition, Recipe, Run

LRS, DECAYS = (0.0125, 0.025, 0.05, 0.1), (0.0, 0.07, 0.2, 0.6)  # for cross-entropy

# Accuracies [(validation, test), TOPS] of finished runs.
Results = Mapping[Run, Tensor]


def recipe(loss: str, lr: float, decay: float) -> Recipe:
    """Cross-entropy's settings, moved to the scale of scores that the loss asks for.

    Where scores have to be s times larger, embeddings and weights have to be sqrt(s) times larger
    each. AdamW's steps are as long as the learning rate, however long the gradient is, and its
    decay pulls against them in proportion to the weights.
    """
    root = LOSSES[loss].scale ** 0.5
    return Recipe(lr * root, decay / root)


class Trial(NamedTuple):
    """A loss under a condition, with the settings of the highest top-5 accuracy on validation pairs.

    `chooser` is the k of another top-k accuracy that chooses.
    """

    condition: Condition
    loss: str
    lrs: Sequence[float] = LRS
    decays: Sequence[float] = DECAYS
    chooser: int = 5

    def tried(self) -> list[Run]:
        return [
            Run(self.condition, self.loss, recipe(self.loss, lr, decay), seed=0)
            for lr, decay in product(self.lrs, self.decays)
        ]

    def chosen(self, results: Results) -> Run:
        return max(self.tried(), key=lambda run: results[run][0, TOPS.index(self.chooser)])

    def by_top_1(self) -> "Trial":
        return self._replace(chooser=1)


class Study(NamedTuple):
    """A table: under each condition the other losses are compared with the first."""

    title: str
    question: str
    trials: Sequence[Trial]

    def tried(self) -> list[Run]:
        return [run for trial in self.trials for run in trial.tried()]

    def best(self, results: Results, seeds: int) -> list[Run]:
        """The best of each trial, by top-5 accuracy and by top-1 accuracy, with every seed."""
        choices = [choice for trial in self.trials for choice in (trial, trial.by_top_1())]
        return [
            choice.chosen(results)._replace(seed=seed)
            for choice in choices
            for seed in range(seeds)
        ]

    def baseline(self, trial: Trial) -> Trial:
        """The first trial that differs in the loss alone."""
        return next(other for other in self.trials if other._replace(loss=trial.loss) == trial)


def on_test_names(results: Results, trial: Trial, seeds: int) -> Tensor:
    """Per cent [seeds, TOPS] with the chosen settings."""
    run = trial.chosen(results)
    return torch.stack([results[run._replace(seed=seed)][1] for seed in range(seeds)])


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean and standard error of values [seeds]; the error of one is 0."""
    seeds = len(values)
    return float(values.mean()), float(values.std(correction=min(1, seeds - 1))) / seeds**0.5

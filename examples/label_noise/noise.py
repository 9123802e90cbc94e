"""Label noise: with some probability a label is drawn anew, from classes that depend on it."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

UNIFORM, CLASS_DEPENDENT = "uniform", "class-dependent"

Targets = Sequence[Sequence[int]]


def uniform(n_classes: int) -> Targets:
    """Every label may become every label."""
    return [range(n_classes)] * n_classes


def within_groups(groups: Iterable[Sequence[int]]) -> Targets:
    """A label stays in its group: the noise of Berrada, Zisserman and Kumar (ICLR 2018)."""
    by_class = {label: group for group in groups for label in group}
    return [by_class[label] for label in range(len(by_class))]


def flips(n_classes: int, flipped: dict[int, int]) -> Targets:
    """A label becomes one certain other: the noise of Zhang and Sabuncu (NeurIPS 2018)."""
    return [[flipped.get(label, label)] for label in range(n_classes)]


def redraw(labels: Tensor, rate: float, targets: Targets, generator: torch.Generator) -> Tensor:
    """Replace each of labels (N,) with probability `rate` by a uniform draw from its targets.

    The draw may give the old label again, where the targets include it.
    """
    probability = torch.zeros(len(targets), len(targets))
    for label, group in enumerate(targets):
        probability[label, list(group)] = 1 / len(group)
    drawn = torch.multinomial(probability[labels], 1, generator=generator).squeeze(1)
    return torch.where(torch.rand(labels.shape, generator=generator) < rate, drawn, labels)

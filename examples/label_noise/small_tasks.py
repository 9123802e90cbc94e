"""Two tasks made of scikit-learn's 8x8 digits: one digit (10 classes), two side by side (100)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from label_noise import noise
from label_noise.runs import Condition

# There are 1797 images; the others are for testing.
TRAIN_IMAGES, VALIDATION_IMAGES = 800, 200


class Split(NamedTuple):
    """Inputs [seeds, samples, features] and labels [seeds, samples]."""

    inputs: Tensor
    labels: Tensor


class Part(NamedTuple):
    """Images [samples, features] and labels [samples] of one seed."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Task:
    """`top`: the k of the top-k loss and of the top-k accuracy that is reported."""

    title: str
    n_classes: int
    top: int
    similar: noise.Targets
    sample: Callable[[Part, int, torch.Generator], Part]
    sizes: tuple[int, int, int]  # training, validation, test


def take(digits: Part, count: int, generator: torch.Generator) -> Part:
    """All the digits: there are `count` of them."""
    assert len(digits.labels) == count
    return digits


def pair(digits: Part, count: int, generator: torch.Generator) -> Part:
    """`count` random pairs of these digits, as numbers from 0 to 99."""
    tens, units = torch.randint(len(digits.labels), (2, count), generator=generator)
    inputs = torch.cat([digits.inputs[tens], digits.inputs[units]], 1)
    return Part(inputs, 10 * digits.labels[tens] + digits.labels[units])


TASKS = {
    "digits": Task(
        "digits, 10 classes",
        n_classes=10,
        top=3,
        similar=noise.within_groups([(0, 6), (1, 4, 7), (2, 8), (3, 5, 9)]),
        sample=take,
        sizes=(TRAIN_IMAGES, VALIDATION_IMAGES, 1797 - TRAIN_IMAGES - VALIDATION_IMAGES),
    ),
    "pairs": Task(
        "pairs of digits, 100 classes",
        n_classes=100,
        top=5,
        similar=noise.within_groups(range(tens, tens + 10) for tens in range(0, 100, 10)),
        sample=pair,
        sizes=(4000, 1000, 2000),
    ),
}


def load(condition: Condition, seeds: tuple[int, ...]) -> tuple[Split, ...]:
    """Training and validation split with noise, clean test split.

    No image is in two splits. The test split is the same for every seed. The fraction shortens the
    training split alone.
    """
    task = TASKS[condition.task]
    pixels, labels = map(torch.from_numpy, load_digits(return_X_y=True))
    digits = Part((pixels / 16).float(), labels)
    n_train, n_validation, n_test = task.sizes
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pool, held_out = order.tensor_split([TRAIN_IMAGES + VALIDATION_IMAGES])

    def draw(images: Tensor, count: int, generator: torch.Generator) -> Part:
        return task.sample(Part(*(part[images] for part in digits)), count, generator)

    similar = condition.noise == noise.CLASS_DEPENDENT
    targets = task.similar if similar else noise.uniform(task.n_classes)

    def redraw(part: Part, generator: torch.Generator) -> Part:
        noisy = noise.redraw(part.labels, condition.rate, targets, generator)
        return part._replace(labels=noisy)

    test = draw(held_out, n_test, torch.Generator().manual_seed(0))
    splits = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shuffled = pool[torch.randperm(len(pool), generator=generator)]
        train = draw(shuffled[:TRAIN_IMAGES], n_train, generator)
        validation = draw(shuffled[TRAIN_IMAGES:], n_validation, generator)
        train = Part(
            *(part[: round(condition.fraction * n_train)] for part in redraw(train, generator))
        )
        splits.append((train, redraw(validation, generator), test))
    return tuple(
        Split(*map(torch.stack, zip(*split, strict=True))) for split in zip(*splits, strict=True)
    )

"""The rows of scores are of every kind that is hard for a loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CLASSES = 100


class Case(NamedTuple):
    name: str
    scores: Tensor  # (3, CLASSES), float64
    labels: Tensor  # those of the first, k-th and next largest score


def cases(k: int) -> list[Case]:
    generator = torch.Generator().manual_seed(k)

    def gauss() -> Tensor:
        return torch.randn(CLASSES, generator=generator, dtype=torch.float64)

    def on_top(count: int, height: float, rest: float = 1.0) -> Tensor:
        shuffled = torch.randperm(CLASSES, generator=generator)
        return (rest * gauss()).index_fill(0, shuffled[:count], height)

    def unmasked(count: int) -> Tensor:
        shuffled = torch.randperm(CLASSES, generator=generator)
        return gauss().index_fill(0, shuffled[count:], -torch.inf)

    rows = {
        "spread 1": gauss(),
        "spread 30": 30 * gauss(),
        "spread 1000": 1000 * gauss(),
        "all equal": torch.full((CLASSES,), 0.7, dtype=torch.float64),
        "k equal on top": on_top(k, 30.0 * k),
        "k + 1 equal on top": on_top(k + 1, 30.0 * k),
        "a third masked": unmasked(CLASSES * 2 // 3),
        "k + 1 classes not masked": unmasked(k + 1),
    }
    return [_case(name, row, k) for name, row in rows.items()]


def _case(name: str, row: Tensor, k: int) -> Case:
    ranked = row.argsort(descending=True)
    labels = ranked[[0, k - 1, k]]
    return Case(name, row.expand(len(labels), -1), labels)

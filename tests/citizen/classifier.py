"""A model that holds a loss, for those who record models, and batches for it."""

# No `from __future__ import annotations`: torch.fx cannot pickle types that are strings.
from collections.abc import Callable
from typing import Any

import torch
from losses import random_labels, random_scores
from torch import Tensor


class Classifier(torch.nn.Module):
    def __init__(self, loss: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 11)
        self.loss = loss

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return self.loss(self.layer(x), labels)


def batch(n_rows: int) -> tuple[Tensor, Tensor]:
    """The first row is ignored."""
    labels = random_labels(n_rows, n=11)
    labels[:1] = -100
    return random_scores(n_rows, 8, seed=n_rows), labels

"""torch.jit.trace of a model that holds a loss."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from losses import (
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    random_labels,
    random_scores,
    with_margins,
)
from torch import Tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    # that what was checked of the shapes is not checked again
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Model(torch.nn.Module):
    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 11)
        self.loss = loss

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return self.loss(self.layer(x), labels)


def batch(n_rows: int) -> tuple[Tensor, Tensor]:
    labels = random_labels(n_rows, n=11)
    labels[:1] = -100
    return random_scores(n_rows, 8, seed=n_rows), labels


@pytest.mark.exhaustive(one_in=2)
@each([*with_margins(3, torch.linspace(0, 2, 11)), Loss("lq_loss", q=0.5)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_same_numbers_for_any_batch(loss: Loss, reduction: str) -> None:
    model = Model(loss.module(reduction=reduction, weight=torch.linspace(0.5, 2, 11)))
    traced = torch.jit.trace(model, batch(4))
    for n_rows in (4, 7, 0):
        results = []
        for module in (traced, model):
            found = module(*batch(n_rows))
            results.append((found, *torch.autograd.grad(found.sum(), model.layer.parameters())))
        torch.testing.assert_close(*results, equal_nan=True)


@every_loss
def test_saved_and_loaded_with_hits(loss: Loss) -> None:
    model = Model(loss.module(return_topk_hits=True))
    file = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, batch(4)), file)
        file.seek(0)
        found, hits = torch.jit.load(file)(*batch(7))
        expected, expected_hits = model(*batch(7))
    exactly_equal(found, expected)
    exactly_equal(tuple(hits), tuple(expected_hits))

"""A training step with autocast and a gradient scaler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from losses import Loss, each, every_loss, one_of_each, random_labels, random_scores
from torch import Tensor

LOW = [torch.float16, torch.bfloat16]
# Weights that make gradients of the scores which float16 has no numbers for.
TINY = torch.full((11,), 1e-8)


class Step:
    """A model of one layer, its optimizer and its scaler, and one batch."""

    def __init__(self, dtype: torch.dtype, scale: float) -> None:
        torch.manual_seed(0)
        self.dtype = dtype
        self.model = torch.nn.Linear(8, 11, bias=False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.x, self.labels = random_scores(16, 8), random_labels(16, n=11)

    def scores(self) -> Tensor:
        with torch.autocast("cpu", dtype=self.dtype):
            return self.model(self.x)

    def backward(self, loss: Tensor) -> Tensor:
        """The gradient of the layer as the optimizer sees it."""
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        assert self.model.weight.grad is not None
        return self.model.weight.grad

    def truth(self, loss: Loss, **options: object) -> Tensor:
        _, gradient = loss.with_gradient(self.scores().double(), self.labels, **options)
        return gradient.t() @ self.x.double()

    def assert_close(self, found: Tensor, truth: Tensor) -> None:
        # x and the gradient of the scores are rounded to the low dtype, and so is the product
        atol = 8 * torch.finfo(self.dtype).eps * float(truth.abs().max())
        torch.testing.assert_close(found.double(), truth, rtol=0, atol=atol)


@every_loss
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("inside", [False, True])
def test_step(loss: Loss, dtype: torch.dtype, inside: bool) -> None:
    step = Step(dtype, 1024.0)
    scores = step.scores()
    assert scores.dtype == dtype
    # the loss is float32 whether or not autocast is on where it is called
    with torch.autocast("cpu", dtype=dtype, enabled=inside):
        found = loss(scores, step.labels)
    assert found.dtype == torch.float32
    gradient = step.backward(found)
    truth = step.truth(loss)
    step.assert_close(gradient, truth)
    before = step.model.weight.detach().clone()
    step.scaler.step(step.optimizer)
    step.assert_close(before - step.model.weight.detach(), truth)


@every_loss
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(
    "options",
    [
        {"weight": TINY, "reduction": "none"},
        {"weight": TINY, "reduction": "sum"},
        {"normalizer": 1e8},
        {"normalizer": torch.tensor(10**8)},
    ],
    ids=["none", "sum", "normalizer", "normalizer tensor"],
)
def test_tiny_gradients_survive(loss: Loss, dtype: torch.dtype, options: dict[str, Any]) -> None:
    step = Step(dtype, 2.0**20)
    gradient = step.backward(loss(step.scores(), step.labels, **options).sum())
    step.assert_close(gradient, step.truth(loss, **options))


@each([loss for loss in one_of_each(3) if loss.name == "hard_svm"])
def test_tiny_gradients_are_lost_without_a_scale(loss: Loss) -> None:
    # what the test above is about
    step = Step(torch.float16, 1.0)
    assert not step.backward(loss(step.scores(), step.labels, weight=TINY, reduction="sum")).any()


@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_a_scale_that_is_too_large_is_seen_and_halved(loss: Loss, reduction: str) -> None:
    step = Step(torch.float16, 2.0**30)
    before = step.model.weight.detach().clone()
    assert (
        not step.backward(loss(step.scores(), step.labels, reduction=reduction).sum())
        .isfinite()
        .all()
    )
    step.scaler.step(step.optimizer)
    step.scaler.update()
    assert torch.equal(step.model.weight, before)
    assert step.scaler.get_scale() == 2.0**29

"""Activation checkpointing, offloading, and the modes in which nothing is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from losses import (
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    one_of_each,
    random_scores,
    with_margins,
)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LABELS = torch.tensor([3, -100, 10, 0, 7])
INPUTS = random_scores(5, 8)


class Model(torch.nn.Module):
    def __init__(self, loss: Loss, reduction: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 11)
        weight = torch.linspace(0.5, 2, 11)
        self.loss = loss.module(reduction=reduction, weight=weight, **options)

    def forward(self, x: Tensor, normalizer: Tensor | None = None) -> Any:
        return self.loss(self.layer(x), LABELS, normalizer=normalizer)

    def gradients(self, run: Callable[[Tensor], Tensor], again: int = 0) -> list[Tensor]:
        """Loss and gradients of (1 + again) backwards."""
        self.zero_grad()
        x = INPUTS.clone().requires_grad_()
        found = run(x)
        for _ in range(again):
            found.sum().backward(retain_graph=True)
        found.sum().backward()
        return [found.detach(), x.grad, self.layer.weight.grad]


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(loss: Loss, reduction: str, reentrant: bool) -> None:
    model = Model(loss, reduction)
    exactly_equal(
        model.gradients(lambda x: checkpoint(model, x, use_reentrant=reentrant)),
        model.gradients(model),
    )


@each([*one_of_each(3), *with_margins(3, torch.linspace(0, 2, 11))])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_with_a_normalizer_and_hits(loss: Loss, reentrant: bool) -> None:
    model = Model(loss, "mean", return_topk_hits=True)
    hits = []

    def found(out: Any) -> Tensor:
        hits.append(out[1])
        return out[0]

    normalizer = torch.tensor(7)
    exactly_equal(
        model.gradients(lambda x: found(checkpoint(model, x, normalizer, use_reentrant=reentrant))),
        model.gradients(lambda x: found(model(x, normalizer))),
    )
    exactly_equal(hits[0], hits[1])


def kept_beside_the_saved(loss: Loss, reduction: str) -> list[Tensor]:
    """Return what a node of the graph holds as an attribute, which nobody can pack."""
    node = loss(random_scores(5, 11).requires_grad_(), LABELS, reduction=reduction).grad_fn
    held = []
    while node is not None:
        held += [x for x in getattr(node, "__dict__", {}).values() if isinstance(x, Tensor)]
        node = node.next_functions[0][0] if node.next_functions else None
    return held


@every_loss
def test_a_gradient_is_kept_beside_the_saved(loss: Loss) -> None:
    # what the test below is about
    assert [x.shape for x in kept_beside_the_saved(loss, "mean")] == [(5, 11)]


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_is_kept_where_what_is_saved_is_packed(loss: Loss, reduction: str) -> None:
    """So that checkpointing and offloading free what they promise."""
    with torch.autograd.graph.save_on_cpu():
        assert not kept_beside_the_saved(loss, reduction)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_checkpoint_and_two_backwards(loss: Loss, reduction: str) -> None:
    model = Model(loss, reduction)
    exactly_equal(
        model.gradients(lambda x: checkpoint(model, x, use_reentrant=False), again=1),
        model.gradients(model, again=1),
    )


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_offloading(loss: Loss, reduction: str) -> None:
    model = Model(loss, reduction)
    expected = model.gradients(model, again=1)
    with torch.autograd.graph.save_on_cpu():
        exactly_equal(model.gradients(model, again=1), expected)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_model_without_gradients(
    loss: Loss, reduction: str, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    model = Model(loss, reduction)
    expected = model(INPUTS).detach()
    with mode():
        found = model(INPUTS)
    assert not found.requires_grad
    exactly_equal(found.clone(), expected)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("which", ["labels", "weight"])
def test_inference_tensors_that_would_be_saved(loss: Loss, reduction: str, which: str) -> None:
    given = {"labels": LABELS, "weight": torch.ones(11)}
    with torch.inference_mode():
        given[which] = given[which].clone()
    # PyTorch's error, which says what to do, as of F.cross_entropy
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        loss(random_scores(5, 11).requires_grad_(), **given, reduction=reduction)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scores_of_inference_mode_have_no_gradient(loss: Loss, reduction: str) -> None:
    with torch.inference_mode():
        scores = random_scores(5, 11)
    found = loss(scores, LABELS, reduction=reduction)
    exactly_equal(found, loss(random_scores(5, 11), LABELS, reduction=reduction))
    with pytest.raises(RuntimeError, match="does not require grad"):
        found.sum().backward()

"""The caller's tensors stay as they are, and the tensors that he is given stay his."""

from __future__ import annotations

import pytest
import torch
from losses import (
    DTYPES,
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    random_scores,
    variants,
)
from torch import Tensor

LABELS = torch.tensor([3, -100, 10, 0, 7, 7])


def bits(x: Tensor) -> bytes:
    return x.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


def inputs(loss: Loss, dtype: torch.dtype, reduction: str) -> dict[str, Tensor]:
    """All that are tensors."""
    scores = random_scores(6, 11, dtype=dtype)
    scores[4, 2], scores[5, 3] = float("nan"), -float("inf")
    given = {
        "scores": scores.requires_grad_(),
        "labels": LABELS.clone(),
        "weight": torch.linspace(0, 2, 11),
    }
    if loss.name != "lq_loss":
        given["margin"] = torch.linspace(0, 2, 6)[:, None]
    if reduction != "none":
        given["normalizer"] = torch.tensor(5.0, dtype=torch.float32)
    return given


@every_loss
def test_the_losses_of_rows_are_no_view(loss: Loss) -> None:
    found = loss(random_scores(6, 11).requires_grad_(), LABELS, reduction="none")
    kept = found.detach().clone()
    exactly_equal(found.detach_(), kept)


@each(variants(3))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_inputs_are_not_written(loss: Loss, dtype: torch.dtype, reduction: str) -> None:
    given = inputs(loss, dtype, reduction)
    before = {name: (bits(x), x._version) for name, x in given.items()}
    found = loss(**given, reduction=reduction)
    kept = bits(found), found._version
    upstream = torch.full_like(found, 3)
    found.backward(upstream, retain_graph=True)
    found.backward(upstream)
    with torch.no_grad():
        loss(**given, reduction=reduction)
    assert {name: (bits(x), x._version) for name, x in given.items()} == before
    assert (bits(found), found._version) == kept
    assert upstream._version == 0


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_results_share_no_memory(loss: Loss, reduction: str) -> None:
    given = inputs(loss, torch.float32, reduction)
    found = loss(**given, reduction=reduction)
    (first,) = torch.autograd.grad(found.sum(), given["scores"], retain_graph=True)
    (second,) = torch.autograd.grad(found.sum(), given["scores"])
    tensors = [*given.values(), found, first, second]
    assert len({x.untyped_storage().data_ptr() for x in tensors}) == len(tensors)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_that_was_handed_over_is_the_callers(
    loss: Loss, reduction: str, dtype: torch.dtype
) -> None:
    """He may overwrite it, as clipping does, and the next backward neither sees nor touches that."""
    given = inputs(loss, dtype, reduction)
    found = loss(**given, reduction=reduction).sum()
    (first,) = torch.autograd.grad(found, given["scores"], retain_graph=True)
    expected = first.clone()
    first.fill_(7)
    (second,) = torch.autograd.grad(found, given["scores"], retain_graph=True)
    exactly_equal(second, expected, equal_nan=True)
    assert (first == 7).all()

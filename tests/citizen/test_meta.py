"""Tensors without values: shapes and dtypes of losses and gradients, and no value asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from losses import DTYPES, REDUCTIONS, Loss, each, every_loss, one_of_each, variants, with_margins
from torch._subclasses import FakeTensorMode

META = [(torch.device("meta"), nullcontext), (torch.device("cpu"), FakeTensorMode)]
every_kind = pytest.mark.parametrize(("device", "mode"), META, ids=["meta", "fake"])
SHAPES = [(11,), (4, 11), (0, 11), (4, 11, 3, 2)]


def labels_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:]) if len(shape) > 1 else ()


def check(
    loss: Loss, shape: tuple[int, ...], dtype: torch.dtype, reduction: str, device: torch.device
) -> None:
    scores = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
    labels = torch.empty(labels_shape(shape), dtype=torch.int64, device=device)
    weight = torch.empty(11, device=device)
    for of_labels in (None, weight):
        found = loss(scores, labels, weight=of_labels, reduction=reduction)
        assert found.shape == (labels.shape if reduction == "none" else ())
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert found.device == device
        scores.grad = None
        found.sum().backward()
        assert scores.grad is not None
        assert scores.grad.shape == shape
        assert scores.grad.dtype == dtype
        assert scores.grad.device == device


@every_loss
@every_kind
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shapes_and_dtypes(
    loss: Loss,
    dtype: torch.dtype,
    reduction: str,
    device: torch.device,
    mode: Callable[[], AbstractContextManager[None]],
) -> None:
    with mode():
        for shape in SHAPES:
            check(loss, shape, dtype, reduction, device)


@each([*variants(1, 10), *one_of_each(60), *one_of_each(300)])
@every_kind
def test_every_variant(
    loss: Loss, device: torch.device, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    with mode():
        scores = torch.empty(4, 400, device=device, requires_grad=True)
        loss(scores, torch.empty(4, dtype=torch.int64, device=device)).backward()
        assert scores.grad is not None
        assert scores.grad.shape == scores.shape


@each([*one_of_each(3), *with_margins(3, torch.empty(11, device="meta"))])
@pytest.mark.parametrize("shape", SHAPES)
def test_margins_normalizer_and_hits(loss: Loss, shape: tuple[int, ...]) -> None:
    scores = torch.empty(shape, device="meta", requires_grad=True)
    labels = torch.empty(labels_shape(shape), dtype=torch.int64, device="meta")
    for normalizer in (7, torch.tensor(7), torch.empty(1, device="meta")):
        found, hits = loss(scores, labels, normalizer=normalizer, return_topk_hits=True)
        found.backward()
        assert found.shape == ()
        for hit in hits:
            assert hit.shape == labels.shape
            assert hit.dtype == torch.bool
            assert hit.is_meta


@every_loss
def test_a_module_made_on_meta(loss: Loss) -> None:
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(8, 11), loss.module(weight=torch.ones(11)))
        scores = model[0](torch.empty(4, 8))
        found = model[1](scores, torch.empty(4, dtype=torch.int64))
    found.backward()
    assert found.device.type == "meta"
    assert model[0].weight.grad.device.type == "meta"


@every_loss
@every_kind
def test_errors_are_the_same(
    loss: Loss, device: torch.device, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    with mode():
        scores = torch.empty(4, 11, device=device)
        with pytest.raises(ValueError, match=r"labels .*\(4,\).*\(3,\)"):
            loss(scores, torch.empty(3, dtype=torch.int64, device=device))

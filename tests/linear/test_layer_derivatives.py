"""Derivatives of any order, and backwards that are called again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from layers import Layer
from losses import REDUCTIONS, Loss, every_loss, exactly_equal
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import triton_topk

every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def function_of(layer: Layer, loss: Loss, reduction: str) -> Callable[..., Tensor]:
    return lambda *tensors: layer.fused(loss, *tensors, reduction=reduction, chunk_rows=2)


@every_loss
@every_reduction
def test_gradcheck(loss: Loss, reduction: str) -> None:
    layer = Layer(5, 3, 7)
    assert gradcheck(function_of(layer, loss, reduction), layer.tensors, check_batched_grad=True)


@every_loss
@every_reduction
def test_second_derivative(loss: Loss, reduction: str) -> None:
    layer = Layer(4, 2, 6)
    assert gradgradcheck(function_of(layer, loss, reduction), layer.tensors)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # addmm's own
@every_loss
@every_reduction
def test_forward_mode(loss: Loss, reduction: str) -> None:
    layer = Layer(4, 2, 6)
    function = function_of(layer, loss, reduction)
    assert gradcheck(function, layer.tensors, check_forward_ad=True, check_backward_ad=False)


@every_loss
@every_reduction
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_backward_again(loss: Loss, reduction: str, dtype: torch.dtype) -> None:
    layer = Layer(dtype=dtype)
    found = layer.fused(loss, reduction=reduction, chunk_rows=3)
    first = layer.gradients(found, 3.0, retain_graph=True)
    again = layer.gradients(found, 3.0, retain_graph=True)
    with_graph = layer.gradients(found, 3.0, create_graph=True)
    doubled = layer.gradients(found, 6.0)
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 10 * torch.finfo(dtype).eps}
    for a, b, c, d in zip(first, again, with_graph, doubled, strict=True):
        assert_close(b, a, **tolerance)
        assert_close(c, a, **tolerance)
        assert_close(d, 2 * a, **tolerance)
    with pytest.raises(RuntimeError, match="second time"):
        found.sum().backward()


@every_loss
def test_a_gradient_that_was_handed_over_is_the_callers(loss: Loss) -> None:
    layer = Layer()
    found = layer.fused(loss, chunk_rows=3)
    first = layer.gradients(found, retain_graph=True)
    expected = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.fill_(torch.nan)
    assert_close(list(layer.gradients(found)), expected)


@every_loss
@every_reduction
def test_create_graph(loss: Loss, reduction: str) -> None:
    """The gradient of a penalty on the gradients."""
    layer = Layer()
    found = []
    for compute in (layer.fused, layer.unfused):
        gradients = layer.gradients(compute(loss, reduction=reduction), 2.0, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in gradients)
        found.append(torch.autograd.grad(penalty, layer.tensors))
    assert_close(*found)


@every_loss
@every_reduction
def test_one_tensor_in_two_places(loss: Loss, reduction: str) -> None:
    layer = Layer(6, 6, 6)
    function = function_of(layer, loss, reduction)

    def of_one(x: Tensor) -> Tensor:
        return function(x, x, x[0])

    assert gradcheck(of_one, (layer.input,))
    assert gradgradcheck(of_one, (layer.input,))


@every_loss
@every_reduction
def test_parts_of_a_batch_accumulate(loss: Loss, reduction: str) -> None:
    layer = Layer()
    expected = layer.gradients(2 * layer.unfused(loss, reduction=reduction))
    for _ in range(2):
        layer.fused(loss, reduction=reduction, chunk_rows=3).sum().backward()
    assert_close([tensor.grad for tensor in layer.tensors], list(expected))


@every_loss
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_where_none_is_wanted(
    loss: Loss, mode: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer()
    expected = layer.fused(loss, chunk_rows=3)
    assert expected.requires_grad

    def fail(*_: Any) -> None:
        raise AssertionError("a product that only a gradient needs")

    monkeypatch.setattr(triton_topk.layer, "_add_product", fail)
    with mode():
        found = layer.fused(loss, chunk_rows=3)
    assert not found.requires_grad
    exactly_equal(found, expected.detach())
    constants = [tensor.detach() for tensor in layer.tensors]
    exactly_equal(layer.fused(loss, *constants, chunk_rows=3), expected.detach())


@every_loss
def test_transforms(loss: Loss) -> None:
    layer = Layer()
    x, weight, bias = (tensor.detach() for tensor in layer.tensors)
    expected = torch.autograd.grad(layer.unfused(loss), layer.input)[0]
    found = torch.func.grad(lambda x: layer.fused(loss, x, weight, bias))(x)
    assert_close(found, expected)
    inputs = torch.stack([x, 2 * x])
    mapped = torch.func.vmap(lambda x: layer.fused(loss, x, weight, bias))(inputs)
    assert_close(mapped, torch.stack([layer.unfused(loss, i, weight, bias) for i in inputs]))

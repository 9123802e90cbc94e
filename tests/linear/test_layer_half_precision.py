"""Half precision: the sum of the weight's gradient, autocast, and small gradients of float16."""

from __future__ import annotations

import pytest
import torch
from layers import Layer
from losses import REDUCTIONS, Loss, every_loss, exactly_equal
from torch import Tensor
from torch.testing import assert_close

import triton_topk

LOW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_weights_gradient_is_accumulated_in_float32(dtype: torch.dtype, reduction: str) -> None:
    """A sum of many equal terms stops growing in half precision."""
    n_rows = 5000
    x = torch.ones(n_rows, 2, dtype=dtype)
    weight = torch.zeros(4, 2, dtype=dtype, requires_grad=True)
    bias = torch.zeros(4, dtype=dtype, requires_grad=True)
    labels = torch.zeros(n_rows, dtype=torch.int64)
    loss = triton_topk.linear_lq_loss(
        x, weight, labels, 0.0, linear_bias=bias, chunk_rows=1, reduction=reduction
    )
    gradients = torch.autograd.grad(loss.sum(), (weight, bias))
    of_class = torch.tensor([-0.75, 0.25, 0.25, 0.25]) * (1 if reduction == "mean" else n_rows)
    for gradient in gradients:
        assert gradient.dtype == dtype
        # of the mean each term is rounded, too
        expected = of_class.reshape(4, *[1] * (gradient.dim() - 1)).expand_as(gradient)
        assert_close(gradient.float(), expected, rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_are_those_of_the_layer(loss: Loss, dtype: torch.dtype, reduction: str) -> None:
    layer = Layer(dtype=dtype)
    found = layer.fused(loss, reduction=reduction, chunk_rows=100)
    expected = layer.unfused(loss, reduction=reduction)
    exactly_equal(found, expected)
    assert found.dtype == torch.float32
    eps = torch.finfo(dtype).eps
    for a, b in zip(layer.gradients(found), layer.gradients(expected), strict=True):
        assert a.dtype == dtype
        assert_close(a, b, rtol=eps, atol=eps * float(b.abs().max()))


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_autocast(loss: Loss, dtype: torch.dtype, reduction: str) -> None:
    layer = Layer(dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        found = layer.fused(loss, reduction=reduction, chunk_rows=100)
        expected = layer.unfused(loss, reduction=reduction)
    exactly_equal(found, expected)
    eps = torch.finfo(dtype).eps
    for a, b in zip(layer.gradients(found, 1024), layer.gradients(expected, 1024), strict=True):
        assert a.dtype == torch.float32
        assert_close(a, b, rtol=eps, atol=eps * float(b.abs().max()))


@every_loss
def test_autocast_takes_an_input_of_its_dtype_and_leaves_float64_alone(loss: Loss) -> None:
    layer, double = Layer(dtype=torch.float32), Layer()
    x, weight, bias = layer.tensors
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exactly_equal(layer.fused(loss, x.bfloat16(), weight, bias), layer.fused(loss))
        assert double.fused(loss).dtype == torch.float64
        with pytest.raises(TypeError, match=r"^linear_weight must have the dtype of input"):
            layer.fused(loss, x.double(), weight, bias)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_autocast_around_a_backward_changes_nothing(loss: Loss, reduction: str) -> None:
    layer = Layer(dtype=torch.float32)
    found = layer.fused(loss, reduction=reduction)
    expected = layer.gradients(found, 3.0, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            assert_close(layer.gradients(found, 3.0, retain_graph=True), expected)


@every_loss
def test_the_weights_gradient_under_autocast_is_not_rounded(loss: Loss) -> None:
    layer = Layer(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.gradients(layer.fused(loss))[1]
    assert not torch.equal(found, found.bfloat16().float())


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("autocast", [False, True])
def test_small_gradients_of_float16_survive_in_a_scaled_loss(
    loss: Loss, reduction: str, autocast: bool
) -> None:
    layer = Layer(dtype=torch.float32 if autocast else torch.float16)
    scale = 2.0**20
    options = {"weight": torch.full((11,), 1e-8)} if reduction != "mean" else {"normalizer": 1e8}

    def scaled(compute: object) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.float16, enabled=autocast):
            found = compute(loss, reduction=reduction, **options)
        return layer.gradients(found, scale)

    eps = torch.finfo(torch.float16).eps
    for a, b in zip(scaled(layer.fused), scaled(layer.unfused), strict=True):
        assert a.any()
        assert_close(a, b, rtol=4 * eps, atol=4 * eps * float(b.abs().max()))

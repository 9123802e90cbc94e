"""The loss of a linear layer, and its gradients, are those of the loss of its scores."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from layers import Layer, N
from losses import MODULES, REDUCTIONS, Loss, each, every_loss, exactly_equal, variants
from torch.testing import assert_close

import triton_topk
from triton_topk import backends

CHUNKS = [1, 3, N, 100, None]
WEIGHT = torch.linspace(0, 2, 11)


def assert_equal(layer: Layer, loss: Loss, chunk_rows: int | None, **options: Any) -> None:
    """Losses and gradients, of a number or of any upstream gradient.

    A product of fewer rows may round the scores differently. The differences in the Taylor-type
    gradient make this some hundred times larger.
    """
    magnified = 100 if loss.options.get("gradient") == "taylor" else 1
    found = layer.fused(loss, chunk_rows=chunk_rows, **options)
    expected = layer.unfused(loss, **options)
    assert_close(found, expected, rtol=1e-13, atol=1e-13)
    upstream = torch.linspace(-1, 3, max(1, expected.numel()), dtype=expected.dtype)
    upstream = upstream[: expected.numel()].reshape(expected.shape)
    for a, b in zip(
        layer.gradients(found, upstream), layer.gradients(expected, upstream), strict=True
    ):
        assert_close(a, b, rtol=magnified * 1e-12, atol=magnified * 1e-13)


@pytest.mark.exhaustive(one_in=4)
@each(variants(3))
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("chunk_rows", CHUNKS)
def test_every_chunk(loss: Loss, reduction: str, chunk_rows: int | None) -> None:
    assert_equal(Layer(), loss, chunk_rows, reduction=reduction)


@pytest.mark.exhaustive(one_in=3)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"weight": WEIGHT},
        {"margin": torch.linspace(0, 2, 11)},
        {"margin": torch.linspace(0, 2, N).unsqueeze(1)},
        {"normalizer": 7},
        {"normalizer": torch.tensor([2.5]), "weight": WEIGHT},
        {"ignore_index": 4, "backend": "eager"},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option(loss: Loss, reduction: str, options: dict[str, Any]) -> None:
    if "margin" in options and loss.name == "lq_loss":
        pytest.skip("this loss has no margin")
    if "normalizer" in options and reduction == "none":
        pytest.skip("there is nothing to divide")
    layer = Layer()
    if "ignore_index" in options:
        layer.labels[2] = 4
    assert_equal(layer, loss, 3, reduction=reduction, **options)


@pytest.mark.exhaustive(one_in=3)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("chunk_rows", [1, None])
@pytest.mark.parametrize(("n", "c"), [(0, 11), (1, 11), (5, 4)])
def test_few_rows_and_classes(
    loss: Loss, reduction: str, chunk_rows: int | None, n: int, c: int
) -> None:
    layer = Layer(n, c=c)
    found = layer.fused(loss, chunk_rows=chunk_rows, reduction=reduction)
    exactly_equal(found.isnan(), layer.unfused(loss, reduction=reduction).isnan())
    if n:
        assert_equal(layer, loss, chunk_rows, reduction=reduction)
    else:
        assert not any(gradient.any() for gradient in layer.gradients(found))


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_single_row(loss: Loss, reduction: str) -> None:
    layer = Layer(1)
    layer.input = layer.input.detach()[0].requires_grad_()
    layer.labels = layer.labels[0]
    assert_equal(layer, loss, None, reduction=reduction)


@every_loss
def test_without_a_bias(loss: Loss) -> None:
    layer = Layer()
    found = layer.fused(loss, layer.input, layer.weight, None, chunk_rows=3)
    expected = layer.unfused(loss, layer.input, layer.weight, None)
    assert_close(found, expected)
    tensors = layer.tensors[:2]
    assert_close(torch.autograd.grad(found, tensors), torch.autograd.grad(expected, tensors))


@pytest.mark.exhaustive(one_in=3)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("wanted", range(1, 7))
def test_some_of_the_gradients(loss: Loss, reduction: str, wanted: int) -> None:
    layer = Layer()
    for i, tensor in enumerate(layer.tensors):
        tensor.requires_grad_(bool(wanted >> i & 1))
    layer.fused(loss, chunk_rows=3, reduction=reduction).sum().backward()
    found = [tensor.grad for tensor in layer.tensors]
    for tensor in layer.tensors:
        tensor.grad = None
    layer.unfused(loss, reduction=reduction).sum().backward()
    for a, tensor in zip(found, layer.tensors, strict=True):
        assert (a is None) == (not tensor.requires_grad)
        if a is not None:
            assert_close(a, tensor.grad)


@every_loss
def test_layouts(loss: Loss) -> None:
    layer, other = Layer(), Layer()
    spread = torch.stack([layer.input.detach(), layer.input.detach()], 2)[:, :, 0]
    other.input = spread.requires_grad_()
    other.weight = layer.weight.detach().t().contiguous().t().requires_grad_()
    assert not other.input.is_contiguous()
    assert not other.weight.is_contiguous()
    found, expected = (x.gradients(x.fused(loss, chunk_rows=3)) for x in (other, layer))
    assert_close(found, expected)


@every_loss
def test_hits(loss: Loss) -> None:
    layer = Layer()
    options = {"return_topk_hits": True} | ({"k": 3} if loss.name == "lq_loss" else {})
    found, hits = layer.fused(loss, chunk_rows=3, **options)
    expected, expected_hits = layer.unfused(loss, **options)
    assert_close(found, expected)
    exactly_equal(hits, expected_hits)
    assert_close(layer.gradients(found), layer.gradients(expected))


@every_loss
def test_nan_stays_in_its_row(loss: Loss) -> None:
    layer = Layer()
    with torch.no_grad():
        layer.input[4] = torch.nan
    found = layer.fused(loss, reduction="none", chunk_rows=3)
    (gradient,) = torch.autograd.grad(found.sum(), layer.input)
    for result in (found, gradient[:, 0]):
        assert result.isnan().nonzero().tolist() == [[4]]


def test_the_tied_embedding_of_a_model() -> None:
    embedding = torch.nn.Embedding(11, 6, dtype=torch.float64)
    words, labels = torch.randint(11, (13,)), torch.randint(11, (13,))
    gradients = []
    for fused in (True, False):
        x = embedding(words)
        if fused:
            loss = triton_topk.linear_smooth_svm(x, embedding.weight, labels, chunk_rows=4)
        else:
            loss = triton_topk.smooth_svm(x @ embedding.weight.t(), labels)
        gradients.append(torch.autograd.grad(loss, embedding.weight)[0])
    assert_close(*gradients)


@every_loss
@pytest.mark.parametrize("chunk_rows", [1, 2, 5, None])
def test_bits_of_a_row(loss: Loss, chunk_rows: int | None, chosen_backend: str) -> None:
    """Products of small integers are exact, and so are the scores, however PyTorch computes them."""
    layer = Layer(dtype=torch.float32)
    layer.input, layer.weight, layer.bias = (x.detach().round() for x in layer.tensors)
    found = layer.fused(loss, chunk_rows=chunk_rows, reduction="none")
    expected = layer.unfused(loss, reduction="none")
    if chosen_backend == "native":
        exactly_equal(found, expected)
    else:
        # vectorised loops over fewer rows end in code that rounds differently
        assert_close(found, expected, rtol=1e-6, atol=1e-6)


@each(variants(3))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_gradient_may_take_the_memory_of_the_scores(
    loss: Loss, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer(dtype=dtype)
    backend = backends.BACKENDS[0]
    assert backend.in_place
    found = layer.gradients(layer.fused(loss, chunk_rows=3))
    monkeypatch.setattr(backend, "in_place", False)
    exactly_equal(found, layer.gradients(layer.fused(loss, chunk_rows=3)))


@pytest.mark.parametrize("name", MODULES)
def test_every_loss_and_option_is_there(name: str) -> None:
    fused, loss = (
        inspect.signature(getattr(triton_topk, f"{prefix}{name}")).parameters
        for prefix in ("linear_", "")
    )
    own = ["input", "linear_weight", "linear_bias", "chunk_rows"]
    assert fused.keys() == {*own, *loss.keys()} - {"scores"}
    for option in loss.keys() - {"scores"}:
        assert fused[option].default == loss[option].default


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("n", [1, N])
def test_input_without_features(loss: Loss, reduction: str, n: int) -> None:
    """The scores are the bias."""
    assert_equal(Layer(n=n, d=0), loss, 3, reduction=reduction)

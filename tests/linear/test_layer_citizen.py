"""A fused layer works with the rest of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from layers import Layer
from losses import REDUCTIONS, Loss, each, every_loss, exactly_equal, variants
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor, init_device_mesh
from torch.testing import assert_close
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import triton_topk
from triton_topk import layer as layers
from triton_topk.batch import Batch
from triton_topk.losses import Lq, Mixture

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def bits(x: Tensor) -> bytes:
    return x.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.exhaustive(one_in=4)
@each(variants(3))
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_are_not_written(loss: Loss, reduction: str, dtype: torch.dtype) -> None:
    layer, options = Layer(dtype=dtype), {"weight": torch.linspace(0, 2, 11)}
    given = [*layer.tensors, layer.labels, options["weight"]]
    before = [(bits(x), x._version) for x in given]
    found = layer.fused(loss, reduction=reduction, chunk_rows=3, **options)
    kept, upstream = bits(found), torch.full_like(found, 3)
    first = layer.gradients(found, upstream, retain_graph=True)
    second = layer.gradients(found, upstream)
    assert [(bits(x), x._version) for x in given] == before
    assert bits(found) == kept
    assert upstream._version == 0
    tensors = [*given, found, *first, *second]
    assert len({x.untyped_storage().data_ptr() for x in tensors}) == len(tensors)


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(loss: Loss, reduction: str, reentrant: bool) -> None:
    layer = Layer()

    def fused(*tensors: Tensor) -> Tensor:
        return layer.fused(loss, *tensors, reduction=reduction, chunk_rows=3)

    found = checkpoint(fused, *layer.tensors, use_reentrant=reentrant)
    expected = fused(*layer.tensors)
    exactly_equal(found, expected)
    found.sum().backward()
    assert_close([x.grad for x in layer.tensors], list(layer.gradients(expected)))


@every_loss
def test_a_dispatch_mode_sees_no_tensor_of_all_scores(loss: Loss) -> None:
    layer = Layer()
    expected = layer.gradients(layer.fused(loss, chunk_rows=3))
    with FlopCounterMode(display=False):
        assert_close(layer.gradients(layer.fused(loss, chunk_rows=3)), expected)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_meta(loss: Loss, reduction: str) -> None:
    layer = Layer()
    expected = layer.fused(loss, reduction=reduction)
    layer.input, layer.weight, layer.bias = (
        x.detach().to("meta").requires_grad_() for x in layer.tensors
    )
    layer.labels = layer.labels.to("meta")
    found = layer.fused(loss, reduction=reduction)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    for x, gradient in zip(layer.tensors, layer.gradients(found), strict=True):
        assert (x.shape, x.dtype) == (gradient.shape, gradient.dtype)


@pytest.mark.parametrize("upstream", [False, True])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@each(
    [Lq(0.7, hits=3, backend="eager"), Mixture(3, 1.0, 1.0, None, 0.7, None, 0.5, backend="eager")]
)
def test_no_value_is_asked_for(loss: Any, dtype: torch.dtype, upstream: bool) -> None:
    """Tensors on the device "meta" have no values, and stand for those on a GPU."""
    x, weight, bias, of_rows = (
        torch.empty(shape, dtype=dtype, device="meta") for shape in ((13, 6), (11, 6), (11,), (13,))
    )
    labels = torch.empty(13, dtype=torch.int64, device="meta")
    layer = layers.Layer(x, weight, bias, dtype, 3)
    batch = Batch(
        layer.like_scores(), labels, weight=of_rows[:11].float(), normalizer=x.new_empty(())
    )
    results = layers._compute(loss, batch, layer, (True,) * 3, of_rows if upstream else None)
    assert all(result.is_meta for result in results if result is not None)


@every_loss
def test_a_subclass_of_tensor_has_the_loss_of_its_scores(loss: Loss) -> None:
    layer = Layer()
    found = layer.fused(loss, TwoTensor(layer.input, 2 * layer.input), layer.weight, layer.bias)
    assert_close(found.a, layer.unfused(loss))
    assert_close(found.b, layer.unfused(loss, 2 * layer.input, layer.weight, layer.bias))


@every_loss
def test_threads(loss: Loss) -> None:
    layer = Layer()
    expected = layer.gradients(layer.fused(loss, chunk_rows=3))
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda _: exactly_equal(step(layer, loss), expected), range(32)):
            pass


def step(layer: Layer, loss: Loss) -> Any:
    return layer.gradients(layer.fused(loss, chunk_rows=3))


def test_symbolic_trace() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 11)

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            weight, bias = self.layer.weight, self.layer.bias
            return triton_topk.linear_smooth_svm(x, weight, labels, linear_bias=bias, chunk_rows=2)

    model, layer = Model(), Layer(dtype=torch.float32)
    traced = torch.fx.symbolic_trace(model)
    assert_close(traced(layer.input, layer.labels), model(layer.input, layer.labels))


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_tensors_have_all_scores_at_once() -> None:
    mesh = init_device_mesh("cpu", (1,))
    layer = Layer()
    tensors = [distribute_tensor(x.detach(), mesh, [Replicate()]) for x in layer.tensors]
    loss = layer.fused(Loss("lq_loss"), *tensors)
    assert isinstance(loss, DTensor)
    torch.testing.assert_close(loss.to_local(), layer.fused(Loss("lq_loss")))

"""No tensor of all scores is made, and what a chunk takes is bounded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import pytest
import torch
from layers import Layer
from losses import REDUCTIONS, Loss, every_loss
from torch.profiler import profile
from torch.utils.checkpoint import checkpoint

from triton_topk import layer as layers

N, D, C = 256, 4, 2000
ALL_SCORES = N * C * 4


class Memory(NamedTuple):
    """The bytes of tensors that a call makes."""

    largest: int  # of one of them
    held: int  # at most, at once
    kept: int  # when it is over


def memory_of(call: Callable[[], Any]) -> Memory:
    with profile(profile_memory=True) as found:
        call()
    events = found.profiler.kineto_results.events()
    sizes = [0, *(event.nbytes() for event in events if event.name() == "[memory]")]
    held = list(accumulate(sizes))
    return Memory(max(sizes), max(held), held[-1])


def step(layer: Layer, loss: Loss, **options: Any) -> None:
    """Run two backwards, and an evaluation."""
    found = layer.fused(loss, **options).sum()
    found.backward(retain_graph=True)
    found.backward()
    with torch.no_grad():
        layer.fused(loss, **options)


@pytest.fixture(params=[torch.float32, torch.float16], ids=str)
def layer(request: pytest.FixtureRequest) -> Layer:
    made = Layer(N, D, C, request.param)
    step(made, Loss("smooth_svm", k=3), chunk_rows=1)  # what is compiled, and .grad
    return made


@pytest.mark.exhaustive(one_in=2)
@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_scores_never_exist(loss: Loss, reduction: str, layer: Layer) -> None:
    memory = memory_of(lambda: step(layer, loss, reduction=reduction, chunk_rows=16))
    # the gradients of the layer, in float32 and in its dtype; the eager backend keeps several numbers of a score,
    # and a CPU that multiplies matrices of float16 itself packs them into blocks, of 280 kB for the weight
    of_layer = (N + C) * (D + 1) * 4
    assert memory.largest < ALL_SCORES / 4
    assert memory.held < 3 * of_layer + ALL_SCORES / 2


@every_loss
def test_the_backward_of_a_number_makes_nothing_of_the_weights_size(loss: Loss) -> None:
    layer = Layer(N, D, C, torch.float32)
    found, upstream = layer.fused(loss, chunk_rows=4), torch.tensor(3.0)
    assert memory_of(lambda: layer.gradients(found, upstream)).held < layer.weight.nbytes / 4


def test_all_scores_are_noticed() -> None:
    layer, loss = Layer(N, D, C, torch.float32), Loss("lq_loss")
    assert memory_of(lambda: layer.unfused(loss).backward()).largest >= ALL_SCORES


@every_loss
def test_under_activation_checkpointing_no_gradient_is_held(loss: Loss) -> None:
    layer = Layer(N, D, C, torch.float32)

    def fused(*tensors: Any) -> Any:
        return layer.fused(loss, *tensors, chunk_rows=4)

    expected = layer.gradients(fused(*layer.tensors))
    found = []
    kept = memory_of(lambda: found.append(fused(*layer.tensors))).kept
    assert kept > layer.weight.nbytes
    found.clear()

    def recomputed() -> None:
        found.append(checkpoint(fused, *layer.tensors, use_reentrant=False))

    assert memory_of(recomputed).kept < layer.weight.nbytes / 2
    for a, b in zip(layer.gradients(found[0]), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("n", "d", "c"), [(4096, 512, 32768), (1024, 768, 262144), (10, 3, 7), (0, 3, 7), (9, 1, 10**9)]
)
@pytest.mark.parametrize("bytes_of_score", [2, 8])
def test_rows_of_a_chunk_by_default(n: int, d: int, c: int, bytes_of_score: int) -> None:
    tensors = [torch.empty(shape, device="meta") for shape in ((n, d), (c, d), (c,))]
    layer = layers.Layer(*tensors, torch.float32, None)
    rows = layer.rows_of_chunk(bytes_of_score)
    allowed = max(64 * 2**20, (n + c) * d * 4 // 8)
    assert 1 <= rows <= max(1, n)
    assert rows == 1 or rows * c * bytes_of_score <= allowed
    # and no fewer than they may be, but for a tile
    assert rows >= n or (rows + 16) * c * bytes_of_score > allowed
    assert layer._replace(chunk_rows=5).rows_of_chunk(bytes_of_score) == max(1, min(5, n))

"""No tensor of all scores is made, and what a chunk takes is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from layers import Layer
from losses import REDUCTIONS, Loss, every_loss
from torch.profiler import profile
from torch.utils.checkpoint import checkpoint

from triton_topk import layer as layers

N, D, C = 64, 8, 5000
ALL_SCORES = N * C * 4


def allocations(call: Callable[[], Any]) -> tuple[int, int]:
    """The bytes of the largest tensor that is made, and of all that are held at once beyond those before."""
    with profile(profile_memory=True) as found:
        call()
    events = found.profiler.kineto_results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    held = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return max(sizes), max(held)


def step(layer: Layer, loss: Loss, **options: Any) -> None:
    """Two backwards, and evaluation."""
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


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_scores_never_exist(loss: Loss, reduction: str, layer: Layer) -> None:
    largest, held = allocations(lambda: step(layer, loss, reduction=reduction, chunk_rows=4))
    # the gradients of the layer, in float32 and in its dtype; the eager backend keeps several numbers of a score
    of_layer = (N + C) * (D + 1) * 4
    assert largest < ALL_SCORES / 4
    assert held < 3 * of_layer + ALL_SCORES / 2


def test_all_scores_are_noticed() -> None:
    layer, loss = Layer(N, D, C, torch.float32), Loss("lq_loss")
    largest, _ = allocations(lambda: layer.unfused(loss).backward())
    assert largest >= ALL_SCORES


@every_loss
def test_under_activation_checkpointing_no_gradient_is_held(loss: Loss) -> None:
    layer = Layer(N, D, C, torch.float32)

    def fused(*tensors: Any) -> Any:
        return layer.fused(loss, *tensors, chunk_rows=4)

    expected = layer.gradients(fused(*layer.tensors))
    found = []
    assert allocations(lambda: found.append(fused(*layer.tensors)))[1] > layer.weight.nbytes
    found.clear()

    def recomputed() -> None:
        found.append(checkpoint(fused, *layer.tensors, use_reentrant=False))

    with profile(profile_memory=True) as events:
        recomputed()
    kept = sum(
        event.nbytes()
        for event in events.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    assert kept < layer.weight.nbytes / 2
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
    allowed = max(64 * 2**20, (n + c) * d * 4 // 4)
    assert 1 <= rows <= max(1, n)
    assert rows == 1 or rows * c * bytes_of_score <= allowed
    # and no fewer than they may be, but for a tile
    assert rows >= n or (rows + 16) * c * bytes_of_score > allowed
    assert layer._replace(chunk_rows=5).rows_of_chunk(bytes_of_score) == max(1, min(5, n))

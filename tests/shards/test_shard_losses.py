"""Processes that share the classes compute the loss of all classes, each of them, and the gradient of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from losses import (
    DTYPES,
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    random_labels,
    random_scores,
    variants,
    with_margins,
)
from processes import Ranks
from sharded import assert_the_whole, shard_of
from torch import Tensor

import triton_topk
from triton_topk import ClassShard

C = 23
# of two, three and four ranks, even and uneven; ranks with fewer classes than k, and with none
SHARDS = [[0, 12], [0, 8, 16], [0, 6, 12, 18], [0, 23], [0, 1, 2], [0, 0, 22, 23]]
every_shard = pytest.mark.parametrize("starts", SHARDS, ids=str)
every_backend = pytest.mark.parametrize("backend", ["native", "eager"])
RanksOf = Callable[[int], Ranks]

# an ignored label, masked classes, ties, NaN and infinities
LABELS = random_labels(8, n=C).index_fill(0, torch.tensor(2), -100)
SCORES = random_scores(8, C)
SCORES[0, :15] = -math.inf
SCORES[1] = SCORES[1].round()
SCORES[3, (LABELS[3] + 1) % C] = math.nan
SCORES[4, LABELS[4]] = -math.inf
SCORES[5, (LABELS[5] + 1) % C] = math.inf
FINITE = random_scores(8, C, seed=1)
WEIGHT, SAMPLE_WEIGHT = torch.linspace(0.5, 2, C), torch.linspace(1, 3, 8)[:, None]


@every_backend
@every_shard
@each(variants(1, 5, 20))
@pytest.mark.exhaustive(one_in=5)
def test_every_loss(loss: Loss, starts: list[int], backend: str, ranks_of: RanksOf) -> None:
    options = {"reduction": "none", "return_topk_hits": True, "backend": backend}
    assert_the_whole(ranks_of(len(starts)), loss, SCORES, LABELS, starts, **options)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_shard
@pytest.mark.exhaustive(one_in=2)
def test_reductions(loss: Loss, reduction: str, starts: list[int], ranks_of: RanksOf) -> None:
    options = {"reduction": reduction, "return_topk_hits": True}
    assert_the_whole(ranks_of(len(starts)), loss, FINITE, LABELS, starts, **options)


@every_loss
@every_backend
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "weight", [WEIGHT, SAMPLE_WEIGHT, (WEIGHT, SAMPLE_WEIGHT)], ids=["class", "sample", "both"]
)
@pytest.mark.exhaustive(one_in=2)
def test_weights(loss: Loss, backend: str, reduction: str, weight: Any, ranks_of: RanksOf) -> None:
    options = {"weight": weight, "reduction": reduction, "backend": backend}
    assert_the_whole(ranks_of(3), loss, FINITE, LABELS, [0, 8, 16], **options)


@each(
    [
        loss
        for margin in (torch.linspace(0, 2, C), torch.linspace(0, 2, 8)[:, None], torch.tensor(0.5))
        for loss in with_margins(5, margin)
    ]
)
@every_backend
def test_margins(loss: Loss, backend: str, ranks_of: RanksOf) -> None:
    for starts in ([0, 8, 16], [0, 0, 1]):
        assert_the_whole(ranks_of(3), loss, FINITE, LABELS, starts, backend=backend)


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("normalizer", [7, torch.tensor(7.0)], ids=["number", "tensor"])
def test_normalizers(loss: Loss, reduction: str, normalizer: Any, ranks_of: RanksOf) -> None:
    options = {"reduction": reduction, "normalizer": normalizer}
    assert_the_whole(ranks_of(2), loss, FINITE, LABELS, [0, 12], **options)


@every_loss
@pytest.mark.parametrize("shape", [(C,), (1, C), (2, C, 4), (2, C, 1, 3), (0, C), (2, C, 0)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.exhaustive(one_in=2)
def test_shapes(loss: Loss, shape: tuple[int, ...], reduction: str, ranks_of: RanksOf) -> None:
    scores = random_scores(*shape)
    labels = random_labels(*shape[:1], *shape[2:], n=C) if len(shape) > 1 else torch.tensor(9)
    options = {"reduction": reduction, "return_topk_hits": True}
    for starts in ([0, 8, 16], [0, 0, 22]):
        assert_the_whole(ranks_of(3), loss, scores, labels, starts, **options)


@every_loss
@every_backend
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(loss: Loss, backend: str, dtype: torch.dtype, ranks_of: RanksOf) -> None:
    scores = SCORES.to(dtype)
    assert_the_whole(
        ranks_of(3), loss, scores, LABELS, [0, 8, 16], reduction="none", backend=backend
    )


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.uint64])
def test_labels_of_other_dtypes(loss: Loss, dtype: torch.dtype, ranks_of: RanksOf) -> None:
    labels = LABELS.where(LABELS >= 0, 22).to(dtype)
    assert_the_whole(ranks_of(3), loss, FINITE, labels, [0, 8, 16], ignore_index=22)


STRIDED = {
    "transposed": FINITE.t().contiguous().t(),
    "stepped": FINITE.repeat_interleave(2, 1)[:, ::2],
    "expanded rows": FINITE[:1].expand(8, -1),
    "expanded classes": FINITE[:, :1].expand(-1, C),
}


@every_loss
@every_backend
@pytest.mark.parametrize("view", STRIDED)
def test_strides(loss: Loss, backend: str, view: str, ranks_of: RanksOf) -> None:
    assert_the_whole(ranks_of(3), loss, STRIDED[view], LABELS, [0, 8, 16], backend=backend)


class AsModule:
    """A loss as a module that is made with its options."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def __call__(self, scores: Tensor, labels: Tensor, **options: Any) -> Any:
        return self.loss.module(**options)(scores, labels)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_modules(loss: Loss, reduction: str, ranks_of: RanksOf) -> None:
    options = {"reduction": reduction, "weight": WEIGHT}
    assert_the_whole(ranks_of(3), AsModule(loss), FINITE, LABELS, [0, 8, 16], **options)


def truncated(scores: Tensor, labels: Tensor, training: bool, **options: Any) -> Tensor:
    """The truncated loss after a refresh that prunes some of the samples."""
    loss = triton_topk.nn.TruncatedLqLoss(8, truncation=0.05, **options)
    indices = torch.arange(8)
    loss.prune(scores.detach(), labels, indices)
    loss.synchronize()
    assert 0 < loss.kept_fraction < 1
    return loss.train(training)(scores, labels, indices)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_truncated_lq_loss(training: bool, reduction: str, ranks_of: RanksOf) -> None:
    options = {"training": training, "reduction": reduction, "weight": WEIGHT}
    assert_the_whole(ranks_of(3), truncated, FINITE, LABELS, [0, 8, 16], **options)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batches_that_count_for_nothing(loss: Loss, reduction: str, ranks_of: RanksOf) -> None:
    for labels, weight in ((torch.full((8,), -100), None), (LABELS, torch.zeros(C))):
        options = {"reduction": reduction, "weight": weight}
        assert_the_whole(ranks_of(3), loss, FINITE, labels, [0, 8, 16], **options)


def compute_without_gradient(loss: Loss, starts: list[int]) -> list[Tensor]:
    """The losses of scores of which one or each requires no gradient, and without gradient mode."""
    local, shard = shard_of(FINITE, starts)
    some = local.clone().requires_grad_(dist.get_rank() > 0)
    with torch.no_grad():
        out = loss(some, LABELS, shard=shard)
    return [out, loss(some, LABELS, shard=shard).detach(), loss(local, LABELS, shard=shard)]


@every_loss
def test_ranks_without_a_gradient(loss: Loss, ranks_of: RanksOf) -> None:
    results = ranks_of(3)(compute_without_gradient, loss, [0, 8, 16])
    exactly_equal(results[0], results[1])
    exactly_equal(results[0], results[2])
    for found in results[0]:
        torch.testing.assert_close(found, loss(FINITE, LABELS))


def compute_under_autocast(loss: Loss, starts: list[int]) -> Tensor:
    features, weight = random_scores(8, 6), random_scores(C, 6)
    local, shard = shard_of(weight.t(), starts)
    with torch.autocast("cpu", torch.bfloat16):
        scores = features @ local
        assert scores.dtype == torch.bfloat16
        return loss(scores, LABELS, shard=shard)


@every_loss
def test_autocast(loss: Loss, ranks_of: RanksOf) -> None:
    results = ranks_of(3)(compute_under_autocast, loss, [0, 8, 16])
    exactly_equal(results, [results[0]] * 3)
    with torch.autocast("cpu", torch.bfloat16):
        expected = loss(random_scores(8, 6) @ random_scores(C, 6).t(), LABELS)
    # a matrix product of fewer columns may round otherwise
    torch.testing.assert_close(results[0], expected, rtol=0.01, atol=0)


def compute_of_half_the_ranks(loss: Loss) -> Tensor:
    """The loss of a group of two of four ranks."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    pair, rank = divmod(dist.get_rank(), 2)
    shard = ClassShard.even(C, pairs[pair])
    local = FINITE.chunk(2, 1)[rank]
    assert shard.start == 12 * rank
    return loss(local + pair, LABELS, shard=shard)


@every_loss
def test_groups_of_some_ranks(loss: Loss, ranks_of: RanksOf) -> None:
    results = ranks_of(4)(compute_of_half_the_ranks, loss)
    exactly_equal(results[0::2], results[1::2])
    expected = [loss(FINITE, LABELS), loss(FINITE + 1, LABELS)]
    torch.testing.assert_close(results[0::2], expected)


def start_of_an_even_shard(total: int) -> int:
    return ClassShard.even(total).start


@pytest.mark.parametrize(
    ("total", "starts"),
    [(23, [0, 6, 12, 18]), (4, [0, 1, 2, 3]), (5, [0, 2, 4, 5]), (1, [0, 1, 1, 1])],
)
def test_even_shards(total: int, starts: list[int], ranks_of: RanksOf) -> None:
    assert ranks_of(4)(start_of_an_even_shard, total) == starts

"""Losses of shards under torch.compile, whose graph has the collective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from losses import Loss, each, every_loss, one_of_each, random_labels, random_scores
from processes import Ranks
from sharded import Results, assert_equal, compute, shard_of, together

C = 23
RanksOf = Callable[[int], Ranks]
WEIGHT = torch.linspace(0.5, 2, C)


def batch(n_rows: int) -> Any:
    """The first label is ignored."""
    labels = random_labels(n_rows, n=C)
    labels[:1] = -100
    return random_scores(n_rows, C, seed=n_rows), labels


def compute_compiled(
    loss: Loss, starts: list[int], sizes: list[int], how: dict[str, Any], options: dict[str, Any]
) -> list[Results]:
    torch._dynamo.reset()
    _, shard = shard_of(batch(1)[0], starts)

    def of_shard(scores: torch.Tensor, labels: torch.Tensor) -> Any:
        return loss(scores, labels, shard=shard, **options)

    compiled = torch.compile(of_shard, fullgraph=True, **how)
    results = []
    # a second graph may be of any number of rows
    limits = {"recompile_limit": 2, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(error_on_recompile="dynamic" in how, **limits):
        for n_rows in sizes:
            scores, labels = batch(n_rows)
            local, _ = shard_of(scores, starts)
            results.append(compute(compiled, local, labels))
    return results


def assert_same(
    ranks: Ranks,
    loss: Loss,
    starts: list[int],
    sizes: list[int],
    how: dict[str, Any],
    **options: Any,
) -> None:
    of_ranks = ranks(compute_compiled, loss, starts, sizes, how, options)
    for n_rows, results in zip(sizes, zip(*of_ranks, strict=True), strict=True):
        assert_equal(together(results), compute(loss, *batch(n_rows), **options))


@each([*one_of_each(5), Loss("smooth_svm", k=5, gradient="taylor")])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.exhaustive(one_in=2)
def test_one_graph(loss: Loss, reduction: str, ranks_of: RanksOf) -> None:
    options = {"reduction": reduction, "weight": WEIGHT, "return_topk_hits": True}
    assert_same(ranks_of(2), loss, [0, 12], [6], {"backend": "aot_eager"}, **options)


@every_loss
@pytest.mark.parametrize("dynamic", [{"dynamic": True}, {}], ids=["dynamic", "by default"])
@pytest.mark.exhaustive(one_in=4)
def test_batches_of_any_size(loss: Loss, dynamic: dict[str, bool], ranks_of: RanksOf) -> None:
    how = {"backend": "aot_eager"} | dynamic
    assert_same(ranks_of(2), loss, [0, 12], [6, 7, 16, 33], how)


def test_a_rank_without_classes(ranks_of: RanksOf) -> None:
    assert_same(ranks_of(2), Loss("smooth_svm", k=3), [0, 23], [6], {"backend": "aot_eager"})


@pytest.mark.exhaustive
@every_loss
def test_with_inductor(loss: Loss, ranks_of: RanksOf) -> None:
    assert_same(ranks_of(2), loss, [0, 12], [6], {}, weight=WEIGHT, return_topk_hits=True)

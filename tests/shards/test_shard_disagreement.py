"""Ranks that disagree are found in the debug mode, and one that has ended leaves the others an error."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from losses import Loss, every_loss, random_labels, random_scores
from processes import Ranks
from sharded import assert_the_whole, shard_of
from torch import Tensor

from triton_topk import ClassShard, hard_svm, smooth_svm

C, STARTS = 23, [0, 8, 16]
SCORES, LABELS = random_scores(6, C), random_labels(6, n=C)
WEIGHT, OTHER_WEIGHT = torch.ones(C), torch.ones(C).index_fill(0, LABELS[:1], 2)


@pytest.fixture(scope="module")
def debugging() -> Iterator[Ranks]:
    with Ranks(3, debug=True) as ranks:
        yield ranks


def compute(alike: dict[str, Any], others: dict[str, Any]) -> Tensor:
    """The loss, where the last rank has other arguments."""
    local, shard = shard_of(SCORES, STARTS)
    given = {"labels": LABELS} | alike | (others if dist.get_rank() == 2 else {})
    return smooth_svm(local, given.pop("labels"), shard=shard, **given)


@every_loss
def test_ranks_that_agree(loss: Loss, debugging: Ranks) -> None:
    labels = LABELS.clone()
    labels[1] = -100
    options = {"weight": (WEIGHT, torch.full((6, 1), torch.nan)), "normalizer": torch.tensor(7.0)}
    assert_the_whole(debugging, loss, SCORES, labels, STARTS, **options)


@pytest.mark.parametrize(
    ("name", "alike", "others"),
    [
        ("labels", {}, {"labels": (LABELS + 1) % C}),
        ("labels", {}, {"labels": LABELS.index_fill(0, torch.tensor(3), -100)}),
        ("ignore_index", {}, {"ignore_index": -1}),
        ("k", {"k": 3}, {"k": 4}),
        ("tau", {}, {"tau": 0.5}),
        ("margin", {}, {"margin": 0.5}),
        ("margin", {"margin": WEIGHT}, {"margin": OTHER_WEIGHT}),
        ("order", {"gradient": "taylor"}, {"order": 3}),
        ("weight", {"weight": WEIGHT, "reduction": "sum"}, {"weight": OTHER_WEIGHT}),
        ("weight", {"reduction": "sum"}, {"weight": WEIGHT}),
        ("normalizer", {"normalizer": 7}, {"normalizer": 8}),
        ("normalizer", {"normalizer": torch.tensor(7)}, {"normalizer": torch.tensor(8)}),
        ("normalizer", {"reduction": "sum"}, {"reduction": "mean"}),
    ],
)
def test_a_rank_with_other_arguments(
    name: str, alike: dict[str, Any], others: dict[str, Any], debugging: Ranks
) -> None:
    for error in debugging.errors(compute, alike, others):
        assert error.startswith(f"ValueError: {name} must be the same on every rank"), error
        assert "on rank 2" in error


def compute_with_shards(starts: list[int], totals: list[int]) -> Tensor:
    """The loss of 8, 8 and 7 scores, with shards that do not go together."""
    local, _ = shard_of(SCORES, STARTS)
    rank = dist.get_rank()
    shard = ClassShard(start=starts[rank], total=totals[rank])
    return smooth_svm(local, LABELS % 16, k=3, shard=shard)


@pytest.mark.parametrize(
    ("starts", "totals", "message"),
    [
        ([0, 8, 16], [23, 23, 24], "total must be the same on every rank"),
        ([0, 7, 16], [23, 23, 23], "the shards of a group must have each of total=23 classes once"),
        ([0, 8, 17], [24, 24, 24], "the shards of a group must have each of total=24 classes once"),
        ([0, 8, 16], [24, 24, 24], "the shards of a group must have each of total=24 classes once"),
        ([0, 0, 16], [23, 23, 23], "the shards of a group must have each of total=23 classes once"),
    ],
)
def test_shards_that_do_not_go_together(
    starts: list[int], totals: list[int], message: str, debugging: Ranks
) -> None:
    for error in debugging.errors(compute_with_shards, starts, totals):
        assert error.startswith(f"ValueError: {message}"), error


def compute_other_losses() -> Tensor:
    local, shard = shard_of(SCORES, STARTS)
    loss = hard_svm if dist.get_rank() == 0 else smooth_svm
    return loss(local, LABELS, shard=shard)


def test_a_rank_with_another_loss(debugging: Ranks) -> None:
    for error in debugging.errors(compute_other_losses):
        assert error.startswith("ValueError: loss must be the same on every rank"), error


def compute_unless_dead(end: str) -> Tensor:
    local, shard = shard_of(SCORES, STARTS)
    if dist.get_rank() == 1:
        if end == "exit":
            os._exit(1)
        labels = LABELS.index_fill(0, torch.tensor(0), C)
        return smooth_svm(local, labels, shard=shard)
    return smooth_svm(local, LABELS, shard=shard)


@pytest.mark.parametrize(("end", "error"), [("exit", "EOFError"), ("raise", "IndexError")])
def test_a_rank_that_does_not_come_is_no_hang(end: str, error: str) -> None:
    with Ranks(3, timeout=3) as ranks:
        ranks(dist.barrier)
        started = time.monotonic()
        first, missing, last = ranks.errors(compute_unless_dead, end)
        assert time.monotonic() - started < 20
        assert missing.startswith(error)
        for waiting in (first, last):
            assert waiting.startswith(("RuntimeError", "DistBackendError")), waiting

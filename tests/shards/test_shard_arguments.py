"""Wrong shards are errors that name the argument, its value and what was expected, before any rank is asked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from losses import Loss, every_loss, random_labels, random_scores
from processes import Ranks
from torch.distributed.device_mesh import init_device_mesh

import triton_topk
from triton_topk import ClassShard, smooth_svm

C = 23
SCORES, LABELS = random_scores(6, 8), random_labels(6, n=C)
SHARD = ClassShard(start=8, total=C)
RanksOf = Callable[[int], Ranks]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": 1.0, "total": 9}, TypeError, "start must be an int, got 1.0"),
        ({"start": True, "total": 9}, TypeError, "start must be an int, got True"),
        ({"start": 0, "total": "9"}, TypeError, "total must be an int, got '9'"),
        ({"start": 0, "total": torch.tensor(9)}, TypeError, "total must be an int"),
        ({"start": -1, "total": 9}, ValueError, r"start must be in \[0, total\]"),
        (
            {"start": 10, "total": 9},
            ValueError,
            r"start must be in \[0, total\].*start=10, total=9",
        ),
        ({"start": 0, "total": 0}, ValueError, r"start must be in \[0, total\] and total > 0"),
        (
            {"start": 4, "total": 9, "size": 6},
            ValueError,
            r"size must be in \[0, total - start\], got size=6, start=4, total=9",
        ),
        ({"start": 4, "total": 9, "size": -1}, ValueError, "size must be in .*, got size=-1"),
        ({"group": 0, "start": 0, "total": 9}, TypeError, "group must be a ProcessGroup or None"),
        ({"start": 0}, TypeError, "total"),
    ],
)
def test_bad_shards(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClassShard(**options)


def test_numbers_of_any_integer_type() -> None:
    numpy = pytest.importorskip("numpy")
    assert ClassShard(start=numpy.int64(8), total=numpy.int32(C)) == SHARD


@every_loss
@pytest.mark.parametrize("shard", [8, (8, C), "even", ClassShard])
def test_a_shard_of_another_type(loss: Loss, shard: Any) -> None:
    with pytest.raises(TypeError, match="shard must be a ClassShard or None, got"):
        loss(SCORES, LABELS, shard=shard)
    with pytest.raises(TypeError, match="shard must be a ClassShard or None, got"):
        loss.module(shard=shard)


@every_loss
def test_more_scores_than_classes(loss: Loss) -> None:
    with pytest.raises(
        ValueError, match=r"shard must .* got 8 of them from start=16 on for total=23"
    ):
        loss(SCORES, LABELS, shard=ClassShard(start=16, total=C))


@every_loss
@pytest.mark.parametrize("label", [-1, C])
def test_labels_of_no_class(loss: Loss, label: int) -> None:
    labels = LABELS.index_fill(0, torch.tensor(1), label)
    with pytest.raises(IndexError, match=rf"labels must be in \[0, 23\) .* got {label}"):
        loss(SCORES, labels, shard=SHARD)


def test_truncated_lq_loss_says_the_same() -> None:
    loss = triton_topk.nn.TruncatedLqLoss(6, shard=ClassShard(start=16, total=C))
    with pytest.raises(ValueError, match="shard must have the classes of the scores"):
        loss(SCORES, LABELS, torch.arange(6))


@pytest.mark.parametrize("k", [23, 24])
def test_k_is_less_than_all_classes(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must satisfy 1 <= k < C=23, got k={k}"):
        smooth_svm(SCORES, LABELS, k, shard=SHARD)


def test_constants_are_those_of_all_classes() -> None:
    for name in ("weight", "margin"):
        with pytest.raises(ValueError, match=rf"{name} must have shape .*\(23,\).* got \(8,\)"):
            smooth_svm(SCORES, LABELS, shard=SHARD, **{name: torch.ones(8)})


def test_k_whose_polynomials_float64_does_not_hold() -> None:
    shard = ClassShard(start=0, total=100_000)
    with pytest.raises(ValueError, match=r"k must be smaller with a shard.*C=100000 .*k=300"):
        smooth_svm(SCORES, LABELS, 300, shard=shard)


def test_without_a_process_group() -> None:
    with pytest.raises(ValueError, match="process group has not been initialized"):
        smooth_svm(SCORES, LABELS, shard=SHARD)
    with pytest.raises(ValueError, match="process group has not been initialized"):
        ClassShard.even(C)


def without_the_first_rank() -> str:
    group = dist.new_group([1, 2])
    if dist.get_rank() == 0:
        with pytest.raises(TypeError, match="group must be a ProcessGroup or None"):
            ClassShard.even(C, group)
        return "refused"
    return str(ClassShard.even(C, group).start)


def test_a_rank_that_is_not_of_the_group(ranks_of: RanksOf) -> None:
    assert ranks_of(3)(without_the_first_rank) == ["refused", "0", "12"]


def given_a_mesh() -> None:
    ClassShard.even(C, init_device_mesh("cpu", (2,)))  # type: ignore[arg-type]


def test_a_mesh_is_no_group(ranks_of: RanksOf) -> None:
    for error in ranks_of(2).errors(given_a_mesh):
        assert error.startswith("TypeError: group must be a ProcessGroup or None, got DeviceMesh")


def copies_have_the_group() -> bool:
    shard = ClassShard.even(C, dist.new_group([0, 1]))
    module = triton_topk.nn.SmoothSVMLoss(shard=shard)
    twin = copy.deepcopy(module)
    return twin.shard == shard and twin.shard.group is shard.group


def test_a_copy_of_a_module_has_its_group(ranks_of: RanksOf) -> None:
    """Averaged models are copies, and a group cannot be copied."""
    assert ranks_of(2)(copies_have_the_group) == [True, True]


def of_the_wrong_size() -> None:
    shard = ClassShard.even(16)
    triton_topk.lq_loss(torch.zeros(2, shard.size + 1), torch.zeros(2).long(), shard=shard)


def test_scores_have_the_classes_of_an_even_shard(ranks_of: RanksOf) -> None:
    for error in ranks_of(2).errors(of_the_wrong_size):
        assert error.startswith("ValueError: scores must have the 8 classes of the shard, got 9")


def of_one_rank(loss: Loss) -> list[Any]:
    found = []
    for shard in (None, ClassShard.even(8)):
        leaf = SCORES.clone().requires_grad_()
        out = loss(leaf, LABELS % 8, shard=shard)
        out.backward()
        found += [out.detach(), leaf.grad]
    return found


@every_loss
def test_a_group_of_one_rank(loss: Loss, ranks_of: RanksOf) -> None:
    ((value, gradient, *found),) = ranks_of(1)(of_one_rank, loss)
    torch.testing.assert_close(found, [value, gradient])

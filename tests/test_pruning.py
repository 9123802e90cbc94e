"""The truncated Lq loss with per-sample weights: what it computes, keeps, saves and refuses."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import swa_utils

from triton_topk import lq_loss, pruning
from triton_topk.pruning import TruncatedLqLoss


def loss_of(num_samples: int = 10, **arguments: object) -> TruncatedLqLoss:
    return TruncatedLqLoss(num_samples, backend="eager", **arguments)


def pruned(*samples: int, **arguments: object) -> TruncatedLqLoss:
    """A loss that has pruned these of its ten samples."""
    loss = loss_of(**arguments)
    loss.kept[list(samples)] = False
    return loss


def scores_of(p: list[float]) -> Tensor:
    """Scores of two classes that give the first the probabilities p."""
    return torch.tensor([[math.log(x), math.log1p(-x)] for x in p])


def zeros(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.long)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_before_any_pruning_it_is_the_lq_loss(reduction: str) -> None:
    torch.manual_seed(0)
    scores, labels = 5 * torch.randn(6, 4), torch.tensor([0, 1, -100, 3, 0, 1])
    weight = torch.rand(4)
    loss = loss_of(q=0.4, weight=weight, reduction=reduction)
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    got = loss(ours, labels, torch.tensor([9, 0, 3, 1, 1, 2]))
    expected = lq_loss(theirs, labels, 0.4, weight=weight, reduction=reduction)
    torch.testing.assert_close(got, expected)
    got.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_pruned_samples_have_weight_0(dtype: torch.dtype, weighted: bool) -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 3, dtype=dtype)
    labels, indices = torch.tensor([0, 2, 1, 1, -100]), torch.tensor([4, 7, 9, 4, 0])
    weight = torch.tensor([0.5, 2.0, 3.0]) if weighted else None
    w = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    lq = lq_loss(scores, labels, 0.7, weight=weight, reduction="none")
    class_weights = weight[labels[:4]] if weighted else torch.ones(4)
    for reduction, expected in (
        ("none", w * lq),
        ("sum", (w * lq).sum()),
        # the sample that was pruned is in the mean
        ("mean", (w * lq).sum() / class_weights.sum()),
    ):
        loss = pruned(7, weight=weight, reduction=reduction)
        wanted = scores.clone().requires_grad_()
        got = loss(wanted, labels, indices)
        assert got.dtype == lq.dtype
        torch.testing.assert_close(got, expected.to(lq.dtype))
        got.sum().backward()
        assert wanted.grad is not None
        assert wanted.grad.dtype == dtype
        assert wanted.grad.abs().amax(1).gt(0).tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_batch_of_pruned_samples_is_0(reduction: str) -> None:
    # whatever its scores are
    scores = torch.tensor([[1.0, 2.0], [math.nan, 0.0], [math.inf, 0.0]], requires_grad=True)
    loss = pruned(1, 2, 3, reduction=reduction)(scores, zeros(3), torch.tensor([1, 2, 3]))
    assert (loss == 0).all()
    loss.sum().backward()
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def test_the_weights_are_fixed_between_refreshes() -> None:
    loss = pruned(1, reduction="none")
    # both on the other side of the truncation than their weights
    scores = scores_of([0.01, 0.99]).requires_grad_()
    losses = loss(scores, zeros(2), torch.tensor([0, 1]))
    losses.sum().backward()
    torch.testing.assert_close(losses[0], torch.tensor((1 - 0.01**0.7) / 0.7))
    assert losses[1] == 0
    assert scores.grad is not None
    assert scores.grad[0].abs().min() > 0.01
    assert (scores.grad[1] == 0).all()


@pytest.mark.parametrize("truncation", [0.1, 0.5, 0.9])
def test_prune_keeps_what_is_more_probable_than_the_truncation(truncation: float) -> None:
    loss = loss_of(truncation=truncation)
    p = [truncation - 1e-6, truncation + 1e-6, 1e-30, 1 - 1e-6]
    indices = torch.tensor([3, 5, 0, 9])
    loss.prune(scores_of(p), zeros(4), indices)
    assert loss.kept[indices].tolist() == [False, True, False, True]
    assert loss.kept.sum() == 8, "samples that were not looked at stay"
    assert loss.kept_fraction == 0.8
    loss.prune(scores_of(p[::-1]), zeros(4), indices)
    assert loss.kept[indices].tolist() == [True, False, True, False]


def test_prune_drops_ties() -> None:
    loss = loss_of(truncation=0.5)
    scores = torch.tensor([[0.3, 0.3]], requires_grad=True)
    assert lq_loss(scores, zeros(1), 0.7, truncation=0.5).item() == pytest.approx(
        (1 - 0.5**0.7) / 0.7
    )
    loss.prune(scores, zeros(1), torch.tensor([4]))
    assert not loss.kept[4]


@pytest.mark.parametrize("q", [0.0, 0.7, 1.0])
def test_after_a_refresh_the_objective_is_the_truncated_loss(q: float) -> None:
    torch.manual_seed(0)
    scores, labels, indices = torch.randn(10, 3), torch.arange(10) % 3, torch.randperm(10)
    loss = loss_of(q=q, truncation=0.4, reduction="sum")
    loss.prune(scores, labels, indices)
    assert 0 < loss.kept.sum() < 10
    at_t = (1 - 0.4**q) / q if q else -math.log(0.4)
    truncated = lq_loss(scores, labels, q, truncation=0.4, reduction="sum")
    objective = loss(scores, labels, indices) - at_t * loss.kept.sum()
    torch.testing.assert_close(objective, truncated - 10 * at_t)
    # and no other weights are better
    for i in range(10):
        other = copy.deepcopy(loss)
        other.kept[i] = 1 - other.kept[i]
        assert other(scores, labels, indices) - at_t * other.kept.sum() > objective


def test_prune_has_no_history_and_changes_no_argument() -> None:
    scores, labels, indices = scores_of([0.2, 0.8]).requires_grad_(), zeros(2), torch.tensor([1, 0])
    copies = [x.detach().clone() for x in (scores, labels, indices)]
    loss = loss_of()
    assert loss.prune(scores, labels, indices) is None
    assert not loss.kept.requires_grad
    loss(scores, labels, indices).backward()
    for x, y in zip((scores, labels, indices), copies, strict=True):
        assert torch.equal(x, y)


def test_a_sample_seen_twice() -> None:
    loss = loss_of()
    # in one call it is kept if it is kept once, in whichever order
    for p in ([0.9, 0.1], [0.1, 0.9]):
        loss.prune(scores_of(p), zeros(2), torch.tensor([3, 3]))
        assert loss.kept[3]
    loss.prune(scores_of([0.1, 0.2]), zeros(2), torch.tensor([3, 3]))
    assert not loss.kept[3], "a later call counts"
    loss.prune(scores_of([0.9]), zeros(1), torch.tensor([3]))
    assert loss.kept[3]


def test_prune_of_ignored_labels_and_nan() -> None:
    loss = pruned(1, 2)
    scores = torch.tensor([[0.0, 9.0], [math.nan, 0.0], [-math.inf, 0.0]])
    loss.prune(scores, torch.tensor([-100, 0, 0]), torch.tensor([1, 2, 3]))
    assert loss.kept[:4].tolist() == [True, True, True, False]
    # what went wrong is seen
    assert loss(scores, zeros(3), torch.tensor([1, 2, 3])).isnan()


# those of a validation set may be larger
@pytest.mark.parametrize("indices", [None, torch.tensor([0, 1, 2, 500])])
def test_validation_is_the_truncated_loss_and_leaves_the_weights(indices: Tensor | None) -> None:
    loss = pruned(0, 1, 2).eval()
    before = loss.kept.clone()
    scores = scores_of([0.1, 0.9, 0.6, 0.2])
    expected = lq_loss(scores, zeros(4), 0.7, truncation=0.5)
    assert loss(scores, zeros(4), indices) == expected
    assert torch.equal(loss.kept, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_indices_of_every_integer_dtype(dtype: torch.dtype) -> None:
    loss = pruned(2)
    scores, indices = scores_of([0.8, 0.2, 0.9]), torch.tensor([2, 3, 2])
    expected = loss(scores, zeros(3), indices)
    assert loss(scores, zeros(3).to(dtype), indices.to(dtype)) == expected
    loss.prune(scores, zeros(3).to(dtype), indices.to(dtype))
    assert loss.kept.tolist() == [i != 3 for i in range(10)]


def test_a_label_beyond_int64_is_not_ignored() -> None:
    # the bits of -100
    labels = torch.tensor([0, 2**64 - 100], dtype=torch.uint64)
    for loss in (loss_of(), loss_of().eval()):
        with pytest.raises(IndexError, match=r"labels must be in \[0, 2\)"):
            loss(scores_of([0.5, 0.5]), labels, torch.tensor([0, 1]))


def test_more_dimensions_and_a_single_row() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 3, 4), torch.randint(3, (2, 4))
    indices = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    rows = scores.movedim(1, -1).reshape(8, 3)
    for reduction in ("none", "mean"):
        loss, flat = loss_of(reduction=reduction), loss_of(reduction=reduction)
        loss.prune(scores, labels, indices)
        flat.prune(rows, labels.reshape(-1), indices.reshape(-1))
        assert torch.equal(loss.kept, flat.kept)
        assert 0 < loss.kept[:8].sum() < 8
        expected = flat(rows, labels.reshape(-1), indices.reshape(-1))
        got = loss(scores, labels, indices)
        torch.testing.assert_close(got.reshape(-1), expected.reshape(-1))
        single = flat(rows[0], labels[0, 0], indices[0, 0])
        assert single == flat(rows[:1], labels[0, :1], indices[0, :1]).sum()


@pytest.mark.parametrize("call", ["forward", "prune"])
@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 10], IndexError, r"indices must be in \[0, 10\), got 10"),
        ([-1, 0], IndexError, r"indices must be in \[0, 10\), got -1"),
        ([0, 1, 2], ValueError, r"indices must have the shape of labels, \(2,\), got \(3,\)"),
        ([0.0, 1.0], TypeError, "indices must be of an integer dtype, got torch.float32"),
        ([True, False], TypeError, "indices must be of an integer dtype, got torch.bool"),
    ],
)
def test_bad_indices(
    call: str, indices: list[object], error: type[Exception], message: str
) -> None:
    loss = pruned(3)
    before = loss.kept.clone()
    with pytest.raises(error, match=message):
        getattr(loss, call)(scores_of([0.1, 0.9]), zeros(2), torch.tensor(indices))
    assert torch.equal(loss.kept, before)


def test_training_needs_indices() -> None:
    """Where p_y is at most t the truncated loss has no gradient, and a network would not begin to learn."""
    loss, scores = loss_of(), scores_of([0.1])
    with pytest.raises(TypeError, match=r"indices must be given in training mode: .*shape.*eval"):
        loss(scores, zeros(1))
    assert loss.eval()(scores, zeros(1)).isfinite()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ignore_index": 0.5}, TypeError, r"ignore_index must be an int, got 0\.5"),
        ({"reduction": "avg"}, ValueError, "reduction must be one of .*'avg'"),
        ({"weight": torch.ones(2, 2)}, ValueError, r"weight must have shape \(C,\), got \(2, 2\)"),
        ({"k": 0.5}, TypeError, "unexpected keyword argument 'k': this loss has none"),
        ({"trainset_size": 9}, TypeError, "unexpected .* 'trainset_size': use num_samples"),
        ({"return_topk_hits": True}, TypeError, "'return_topk_hits': expected one of num_samples"),
    ],
)
def test_bad_options(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        loss_of(**arguments)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [("truncation", 3, ValueError), ("truncation", None, TypeError), ("q", 7, ValueError)],
)
def test_bad_options_that_were_set_since(
    option: str, value: float | None, error: type[Exception]
) -> None:
    loss = loss_of()
    setattr(loss, option, value)
    scores, labels, indices = torch.randn(4, 5), torch.arange(4), torch.arange(4)
    for call in (loss, loss.prune):
        with pytest.raises(error, match=f"{option} must be .*got {value}"):
            call(scores, labels, indices)
    assert loss.kept.all()


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match=r"num_samples must be an int, got 2\.0"):
        TruncatedLqLoss(2.0)
    with pytest.raises(TypeError, match=r"num_samples must be an int, got True"):
        TruncatedLqLoss(True)
    with pytest.raises(ValueError, match="num_samples must be >= 1, got 0"):
        TruncatedLqLoss(0)
    with pytest.raises(TypeError, match=r"truncation must be in \(0, 1\), got None"):
        TruncatedLqLoss(2, truncation=None)
    with pytest.raises(ValueError, match=r"truncation must be .* in \(0, 1\), got 1\.0"):
        TruncatedLqLoss(2, truncation=1.0)
    with pytest.raises(ValueError, match=r"q must be in \[0, 1\], got 1\.5"):
        TruncatedLqLoss(2, q=1.5)
    loss = loss_of()
    with pytest.raises(TypeError, match="indices must be a Tensor, got list"):
        loss(scores_of([0.1]), zeros(1), [0])
    with pytest.raises(TypeError, match="labels must be a Tensor, got list"):
        loss(scores_of([0.1]), [0], torch.tensor([0]))
    with pytest.raises(IndexError, match="labels must be in"):
        loss(scores_of([0.1]), torch.tensor([2]), torch.tensor([0]))
    with pytest.raises(ValueError, match="scores must be on the device of the loss, meta"):
        loss.to("meta")(scores_of([0.1]), zeros(1), torch.tensor([0]))


def test_integers_of_any_type() -> None:
    loss = loss_of(np.int64(10), ignore_index=np.int64(1))
    assert repr(loss) == repr(loss_of(10, ignore_index=1))
    scores, indices = scores_of([0.2, 0.9]), torch.tensor([0, 1])
    assert loss(scores, torch.tensor([0, 1]), indices) == loss_of(ignore_index=1)(
        scores, torch.tensor([0, 1]), indices
    )


def test_a_refresh_in_inference_mode_and_another_outside_of_it() -> None:
    loss, scores = loss_of(), scores_of([0.2, 0.9])
    with torch.inference_mode():
        loss.prune(scores, zeros(2), torch.tensor([0, 1]))
    loss.prune(scores, zeros(2), torch.tensor([2, 3]))
    assert loss.kept.tolist() == [i not in (0, 2) for i in range(10)]


def test_weights_that_are_loaded_end_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_world_size", lambda: 2)
    loss, given = loss_of(), (scores_of([0.2]), zeros(1), torch.tensor([0]))
    loss.prune(*given)
    with pytest.raises(RuntimeError, match="call synchronize on every rank"):
        loss(*given)
    loss.load_state_dict(loss_of().state_dict())
    assert loss(*given) > 0


def test_state_dict_is_the_weights() -> None:
    loss = pruned(3, 4)
    assert list(loss.state_dict()) == ["kept"]
    assert list(loss_of(weight=torch.ones(2)).state_dict()) == ["weight", "kept"]
    loss.prune(scores_of([0.2]), zeros(1), torch.tensor([5]))
    resumed = loss_of()
    resumed.load_state_dict(loss.state_dict())
    assert resumed.kept.tolist() == [i not in (3, 4, 5) for i in range(10)]
    with pytest.raises(RuntimeError, match="size mismatch for kept"):
        loss_of(11).load_state_dict(loss.state_dict())


def ema(averaged: Tensor, current: Tensor, _: Tensor | int) -> Tensor:
    return 0.6 * averaged + 0.4 * current


@pytest.mark.parametrize(
    "how",
    [{}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.6)}, {"avg_fn": ema}],
    ids=["mean", "moving", "function"],
)
def test_an_average_of_models_keeps_what_most_of_them_keep(how: dict[str, object]) -> None:
    model = torch.nn.ModuleList([torch.nn.BatchNorm1d(2), loss_of(weight=torch.ones(2))])
    loss = model[1]
    average = swa_utils.AveragedModel(model, use_buffers=True, **how)
    indices = torch.tensor([0, 1, 2])
    for p in ([0.9, 0.9, 0.1], [0.9, 0.1, 0.1], [0.1, 0.9, 0.9]):
        loss.prune(scores_of(p), zeros(3), indices)
        average.update_parameters(model)
    averaged = average.module[1]
    expected = pruned(2)
    scores = scores_of([0.3, 0.4, 0.5])
    assert averaged(scores, zeros(3), indices) == expected(scores, zeros(3), indices)
    assert averaged.kept_fraction == expected.kept_fraction
    # it is a loss like any other
    averaged.prune(scores_of([0.1, 0.9, 0.9]), zeros(3), indices)
    assert averaged.kept.tolist() == [i != 0 for i in range(10)]
    assert averaged.eval()(scores, zeros(3)) == loss.eval()(scores, zeros(3))


def test_a_loss_made_on_the_meta_device_is_reset() -> None:
    with torch.device("meta"):
        loss = loss_of()
    loss.to_empty(device="cpu")
    loss.kept.fill_(math.nan)
    loss.reset_parameters()
    assert loss.kept_fraction == 1
    loss = pruned(3)
    loss.prune(scores_of([0.1]), zeros(1), torch.tensor([4]))
    loss.reset_parameters()
    loss.prune(scores_of([0.1]), zeros(1), torch.tensor([5]))
    assert loss.kept.tolist() == [i != 5 for i in range(10)]


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(how: Callable[[TruncatedLqLoss], TruncatedLqLoss]) -> None:
    loss = loss_of(q=0.3, truncation=0.2, weight=torch.tensor([1.0, 2.0]))
    scores, indices = scores_of([0.1, 0.3]), torch.tensor([3, 4])
    loss.prune(scores, zeros(2), indices)
    twin = how(loss)
    assert twin(scores, zeros(2), indices) == loss(scores, zeros(2), indices)
    twin.prune(scores_of([0.9]), zeros(1), torch.tensor([3]))
    assert twin.kept[3]
    assert not loss.kept[3]


def test_the_weights_follow_to_and_survive_half() -> None:
    loss = pruned(1, weight=torch.ones(2))
    assert loss.to("meta").kept.device.type == "meta"
    loss = pruned(1, weight=torch.ones(2)).half()
    assert loss.weight is not None
    assert loss.weight.dtype == torch.float16
    assert loss.kept.tolist() == [i != 1 for i in range(10)]
    assert loss.kept_fraction == torch.tensor(0.9)
    assert loss.kept_fraction.dtype == torch.float32


def test_repr() -> None:
    assert "weight=<Tensor of shape (3,)>" in repr(loss_of(weight=torch.ones(3)))
    assert repr(loss_of(q=0.5)) == (
        "TruncatedLqLoss(num_samples=10, q=0.5, truncation=0.5, ignore_index=-100, "
        "reduction='mean', backend='eager')"
    )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_in_one_graph(reduction: str) -> None:
    torch.compiler.reset()
    loss = pruned(2, weight=torch.tensor([1.0, 2.0]), reduction=reduction)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for p, stance in (([0.2, 0.7, 0.9], "default"), ([0.6, 0.1, 0.3], "fail_on_recompile")):
        for call in (loss, compiled):
            scores = scores_of(p).requires_grad_()
            with torch.compiler.set_stance(stance):
                got = call(scores, torch.tensor([0, 1, 0]), torch.tensor([2, 1, 0]))
            got.sum().backward()
            assert scores.grad is not None
            results.append(torch.cat((got.detach().reshape(-1), scores.grad.reshape(-1))))
        torch.testing.assert_close(*results[-2:])
        # new weights need no new graph
        loss.prune(scores_of(p), zeros(3), torch.tensor([0, 1, 2]))


def noisy_blobs(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points of three well separated classes, their labels, and which are wrong: every fourth."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(n) % 3
    centres = 4 * torch.eye(3)
    points = centres[true] + 0.3 * torch.randn(n, 3, generator=generator)
    wrong = torch.arange(n) % 4 == 0
    return points, torch.where(wrong, (true + 1) % 3, true), wrong


def test_training_goes_on_in_epochs_that_prune() -> None:
    points, labels, wrong = noisy_blobs(60)
    indices = torch.arange(60)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    loss = loss_of(60)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for epoch in range(30):
        if epoch >= 15:
            for batch in indices.split(16):
                loss.prune(model(points[batch]), labels[batch], batch)
        before = model.weight.detach().clone()
        for batch in indices.split(16):
            optimizer.zero_grad()
            loss(model(points[batch]), labels[batch], batch).backward()
            optimizer.step()
        assert (model.weight != before).any(), epoch
    assert torch.equal(loss.kept == 0, wrong)


# A process that joins takes the time to import PyTorch: all that is distributed shares two of them.
def _rank(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/store", rank=rank, world_size=2
    )
    _agree_after_pruning_shards(rank)
    _model_that_contains_the_loss(rank)
    _resume(rank, Path(directory) / "checkpoint.pt")
    torch.distributed.destroy_process_group()


def _gathered(x: Tensor) -> list[Tensor]:
    found = [torch.empty_like(x) for _ in range(2)]
    torch.distributed.all_gather(found, x)
    return found


def _agree_after_pruning_shards(rank: int) -> None:
    points, labels, _ = noisy_blobs(11)
    # the odd one out is padded with sample 0
    sampler = torch.utils.data.DistributedSampler(range(11), 2, rank, shuffle=False)
    shard = torch.tensor(list(sampler))
    assert len(shard) == 6
    alone, loss = loss_of(11), loss_of(11)
    for turn in range(2):
        # the second refresh finds the opposite
        scores = points if turn == 0 else -points
        alone.prune(scores, labels, torch.arange(11))
        for batch in shard.split(4):
            loss.prune(scores[batch], labels[batch], batch)
        with pytest.raises(RuntimeError, match="call synchronize on every rank"):
            loss(scores[:1], labels[:1], torch.tensor([0]))
        loss.eval()
        assert loss(scores[:1], labels[:1], torch.tensor([0])).isfinite()
        loss.train()
        loss.synchronize()
        assert 0 < alone.kept.sum() < 11
        for kept in _gathered(loss.kept):
            assert torch.equal(kept, alone.kept)
        assert loss(scores[:1], labels[:1], torch.tensor([0])).isfinite()
    # Ranks that look at the same sample and differ; one of them has nothing else to say.
    if rank == 1:
        loss.prune(scores_of([0.1, 0.1]), zeros(2), torch.tensor([0, 1]))
    else:
        loss.prune(scores_of([0.9]), zeros(1), torch.tensor([0]))
    loss.synchronize()
    assert loss.kept[:2].tolist() == [True, False]
    loss.synchronize()
    assert loss.kept[:2].tolist() == [True, False]


class _ModelWithLoss(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        self.loss = loss_of(12)

    def forward(self, points: Tensor) -> Tensor:
        return self.layer(points)


def _model_that_contains_the_loss(rank: int) -> None:
    points, labels, _ = noisy_blobs(12)
    torch.manual_seed(0)
    model = _ModelWithLoss()
    alone = loss_of(12)
    alone.prune(model(points), labels, torch.arange(12))
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    for batch in torch.arange(rank, 12, 2).split(2):
        # rank 0's buffers overwrite the others' here, since gradients are on
        scores = parallel(points[batch])
        model.loss.prune(scores, labels[batch], batch)
    model.loss.synchronize()
    assert 0 < alone.kept.sum() < 12
    shard = torch.arange(rank, 12, 2)
    model.loss(parallel(points[shard]), labels[shard], shard).backward()
    for kept in _gathered(model.loss.kept):
        assert torch.equal(kept, alone.kept)
    assert torch.equal(*_gathered(model.layer.weight.grad))
    assert (model.layer.weight.grad != 0).any()


def _resume(rank: int, path: Path) -> None:
    loss = loss_of(4)
    loss.prune(scores_of([0.1]), zeros(1), torch.tensor([rank]))
    loss.synchronize()
    if rank == 0:
        torch.save(loss.state_dict(), path)
    torch.distributed.barrier()
    resumed = loss_of(4)
    resumed.load_state_dict(torch.load(path))
    assert resumed.kept.tolist() == [False, False, True, True]


def test_ranks_agree(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)

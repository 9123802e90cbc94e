"""Scores that are a DTensor, laid out over processes in any way, have the loss and the gradient of all scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import pytest
import torch
from losses import (
    REDUCTIONS,
    Loss,
    every_loss,
    exactly_equal,
    random_labels,
    random_scores,
)
from processes import Ranks
from sharded import Results, assert_equal, compute
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.utils.checkpoint import checkpoint

from triton_topk import ClassShard, smooth_svm
from triton_topk.nn import TruncatedLqLoss

# neither can be divided evenly
N, C = 7, 23
SCORES = random_scores(N, C)
LABELS = random_labels(N, n=C).index_fill(0, torch.tensor(2), -100)
WEIGHT, SAMPLE_WEIGHT = torch.linspace(0.5, 2, C), torch.linspace(1, 3, N)[:, None]
MESHES = {2: (2,), 3: (3,), 4: (2, 2)}
RanksOf = Callable[[int], Ranks]
Placements = tuple[Placement, ...]

LINES: list[Placements] = [(Shard(0),), (Shard(1),), (Replicate(),), (Partial(),)]
SQUARES: list[Placements] = [
    (Shard(0), Shard(1)),
    (Shard(1), Shard(0)),
    (Replicate(), Shard(1)),
    (Shard(1), Partial()),
    (Shard(0), Shard(0)),
    (Shard(0), Replicate()),
]
LAYOUTS = [(2, x) for x in LINES] + [(3, x) for x in LINES] + [(4, x) for x in SQUARES]
every_layout = pytest.mark.parametrize(("world", "placements"), LAYOUTS, ids=str)


class Placed(NamedTuple):
    """A tensor that every process makes a DTensor, with the last placement for the dimensions that have none."""

    tensor: Tensor
    placements: Placements


@cache
def mesh_of(shape: tuple[int, ...]) -> DeviceMesh:
    return init_device_mesh("cpu", shape)


def placed(mesh: DeviceMesh, x: Any) -> Any:
    if isinstance(x, tuple) and not isinstance(x, Placed):
        return tuple(placed(mesh, part) for part in x)
    if not isinstance(x, Placed):
        return x
    placements = (*x.placements, *[x.placements[-1]] * (mesh.ndim - len(x.placements)))
    # what is a sum is that of equal parts, which are exact
    partial = [i for i, p in enumerate(placements) if p.is_partial()]
    whole = [Replicate() if p.is_partial() else p for p in placements]
    out = distribute_tensor(x.tensor, mesh, whole)
    for i in partial:
        first = mesh.get_local_rank(i) == 0
        local = out.to_local() if first else torch.zeros_like(out.to_local())
        out = DTensor.from_local(local, mesh, placements, shape=out.shape, stride=out.stride())
    return out


def compute_placed(
    loss: Callable[..., Any],
    mesh_shape: tuple[int, ...],
    scores: Placed,
    labels: Any,
    options: dict[str, Any],
) -> tuple[Results, list[Placements]]:
    """The results as a whole, and how the loss and the gradient are laid out."""
    mesh = mesh_of(mesh_shape)
    leaf = placed(mesh, scores).detach().requires_grad_()
    given = {name: placed(mesh, x) for name, x in options.items()}
    out = loss(leaf, placed(mesh, labels), **given)
    value, hits = out if isinstance(out, tuple) else (out, None)
    assert isinstance(value, DTensor)
    assert (
        value.shape == (labels if isinstance(labels, Tensor) else labels.tensor).shape
        or not value.dim()
    )
    upstream = torch.linspace(1, 2, max(1, value.numel()), dtype=value.dtype)
    value.backward(
        distribute_tensor(upstream[: value.numel()].reshape(value.shape), mesh, value.placements)
    )
    assert isinstance(leaf.grad, DTensor)
    if hits is not None:
        hits = type(hits)(*[x.full_tensor() for x in hits])
    results = Results(value.detach().full_tensor(), hits, leaf.grad.full_tensor())
    return results, [value.placements, leaf.grad.placements]


def plain(x: Any) -> Any:
    if isinstance(x, Placed):
        return x.tensor
    return tuple(plain(part) for part in x) if isinstance(x, tuple) else x


def assert_as_plain(
    ranks: Ranks, loss: Callable[..., Any], scores: Placed, labels: Any, **options: Any
) -> list[Placements]:
    """Compare with the loss of plain tensors, to the bit on every rank; return the layouts of loss and gradient."""
    found = ranks(compute_placed, loss, MESHES[ranks.world], scores, labels, options)
    results = [of_rank for of_rank, _ in found]
    exactly_equal(results, [results[0]] * ranks.world, equal_nan=True)
    given = {name: plain(x) for name, x in options.items()}
    assert_equal(results[0], compute(loss, scores.tensor, plain(labels), **given))
    return found[0][1]


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_layout
@pytest.mark.exhaustive(one_in=2)
def test_every_layout(
    loss: Loss, reduction: str, world: int, placements: Placements, ranks_of: RanksOf
) -> None:
    options = {"reduction": reduction, "return_topk_hits": True, "weight": WEIGHT}
    scores = Placed(SCORES, placements)
    of_loss, of_gradient = assert_as_plain(ranks_of(world), loss, scores, LABELS, **options)
    over_rows = [p if p == Shard(0) else Replicate() for p in placements]
    everywhere = [Replicate()] * len(placements)
    assert list(of_loss) == (over_rows if reduction == "none" else everywhere)
    whole = [Replicate() if p.is_partial() else p for p in placements]
    assert list(of_gradient) == whole


@pytest.mark.parametrize("labels", [(Replicate(),), (Shard(0),)], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean"])
@every_layout
@pytest.mark.exhaustive(one_in=2)
def test_labels(
    labels: Placements, reduction: str, world: int, placements: Placements, ranks_of: RanksOf
) -> None:
    loss, scores = Loss("smooth_svm", k=5), Placed(SCORES, placements)
    assert_as_plain(ranks_of(world), loss, scores, Placed(LABELS, labels), reduction=reduction)


OF_CLASSES, OF_SAMPLES = torch.linspace(0, 2, C), torch.linspace(0, 2, N)[:, None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", SAMPLE_WEIGHT),
        ("weight", (WEIGHT, SAMPLE_WEIGHT)),
        ("weight", Placed(WEIGHT, (Shard(0),))),
        ("weight", Placed(SAMPLE_WEIGHT, (Shard(0),))),
        ("weight", (Placed(WEIGHT, (Replicate(),)), Placed(SAMPLE_WEIGHT, (Replicate(),)))),
        ("margin", OF_CLASSES),
        ("margin", OF_SAMPLES),
        ("margin", torch.tensor(0.5)),
        ("margin", Placed(OF_CLASSES, (Shard(0),))),
        ("margin", Placed(OF_SAMPLES, (Shard(0),))),
        ("normalizer", 7),
        ("normalizer", torch.tensor(7.0)),
        ("normalizer", Placed(torch.tensor(7.0), (Replicate(),))),
    ],
)
@every_layout
@pytest.mark.exhaustive(one_in=2)
def test_options(
    name: str, value: Any, world: int, placements: Placements, ranks_of: RanksOf
) -> None:
    loss, scores = Loss("smooth_svm", k=5), Placed(SCORES, placements)
    assert_as_plain(ranks_of(world), loss, scores, LABELS, **{name: value})


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("world", "placements"),
    [
        (2, (Shard(2),)),
        (3, (Shard(0),)),
        (3, (Shard(1),)),
        (3, (Shard(2),)),
        (4, (Shard(2), Shard(1))),
        (4, (Shard(2), Shard(0))),
    ],
    ids=str,
)
@pytest.mark.parametrize("labels", [None, (Replicate(),), (Shard(0),), (Shard(1),)], ids=str)
@pytest.mark.exhaustive(one_in=2)
def test_three_dimensions(
    reduction: str, world: int, placements: Placements, labels: Any, ranks_of: RanksOf
) -> None:
    scores, of_rows = random_scores(2, 11, 5), random_labels(2, 5, n=11)
    margin, weight = torch.rand(2, 1, 5), torch.rand(2, 1, 5)
    assert_as_plain(
        ranks_of(world),
        Loss("smooth_svm", k=5),
        Placed(scores, placements),
        of_rows if labels is None else Placed(of_rows, labels),
        reduction=reduction,
        margin=margin,
        weight=weight,
    )


@every_loss
@pytest.mark.parametrize("placements", [(Shard(0),), (Replicate(),)], ids=str)
def test_a_single_row(loss: Loss, placements: Placements, ranks_of: RanksOf) -> None:
    assert_as_plain(ranks_of(3), loss, Placed(SCORES[0], placements), LABELS[0])


@every_loss
@pytest.mark.parametrize("n_rows", [0, 1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("placements", [(Shard(0),), (Shard(1),)], ids=str)
@pytest.mark.exhaustive(one_in=2)
def test_ranks_without_rows(
    loss: Loss, n_rows: int, reduction: str, placements: Placements, ranks_of: RanksOf
) -> None:
    scores = Placed(SCORES[:n_rows], placements)
    assert_as_plain(ranks_of(3), loss, scores, LABELS[:n_rows], reduction=reduction)


def compiled(scores: Tensor, labels: Tensor, **options: Any) -> Any:
    torch._dynamo.reset()
    in_one_graph = torch.compile(smooth_svm, fullgraph=True, backend="aot_eager")
    return in_one_graph(scores, labels, **options)


@pytest.mark.parametrize(
    ("world", "placements"), [*((2, x) for x in LINES), (4, (Shard(0), Shard(1)))], ids=str
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.exhaustive(one_in=5)
def test_compiled(reduction: str, world: int, placements: Placements, ranks_of: RanksOf) -> None:
    options = {"reduction": reduction, "weight": WEIGHT}
    assert_as_plain(ranks_of(world), compiled, Placed(SCORES, placements), LABELS, **options)


def checkpointed(scores: Tensor, labels: Tensor, **options: Any) -> Any:
    return checkpoint(partial(smooth_svm, **options), scores, labels, use_reentrant=False)


@every_layout
def test_checkpoint(world: int, placements: Placements, ranks_of: RanksOf) -> None:
    options = {"return_topk_hits": True, "weight": WEIGHT}
    assert_as_plain(ranks_of(world), checkpointed, Placed(SCORES, placements), LABELS, **options)


def truncated(
    scores: Tensor, labels: Tensor, *, indices: Tensor, weight: Any, reduction: str
) -> Tensor:
    """The truncated loss after a refresh that prunes some of the samples."""
    of_classes, of_samples = weight
    loss = TruncatedLqLoss(N, truncation=0.05, weight=of_classes, reduction=reduction)
    loss.prune(scores.detach(), labels, indices)
    loss.synchronize()
    assert 0 < loss.kept_fraction < 1
    return loss(scores, labels, indices, weight=of_samples)


def replicated(x: Tensor) -> Placed:
    return Placed(x, (Replicate(),))


def by_rows(x: Tensor) -> Placed:
    return Placed(x, (Shard(0),))


@pytest.mark.parametrize(
    "given", [lambda x: x, replicated, by_rows], ids=["plain", "whole", "rows"]
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@every_layout
@pytest.mark.exhaustive(one_in=2)
def test_truncated_lq_loss(
    given: Callable[[Tensor], Any],
    reduction: str,
    world: int,
    placements: Placements,
    ranks_of: RanksOf,
) -> None:
    """Labels, weights and indices are plain or DTensors."""
    options = {
        "reduction": reduction,
        "weight": (given(WEIGHT), given(SAMPLE_WEIGHT)),
        "indices": given(torch.arange(N)),
    }
    scores = Placed(SCORES, placements)
    assert_as_plain(ranks_of(world), truncated, scores, given(LABELS), **options)


def call(*args: Any) -> Any:
    mesh_shape, scores, labels, options = args
    mesh = mesh_of(mesh_shape)
    given = {name: placed(mesh, x) for name, x in options.items()}
    return smooth_svm(placed(mesh, scores), placed(mesh, labels), **given)


@pytest.mark.parametrize("placements", [(Shard(0),), (Shard(1),)], ids=str)
def test_every_rank_says_that_a_label_is_no_class(
    placements: Placements, ranks_of: RanksOf
) -> None:
    labels = LABELS.index_fill(0, torch.tensor(N - 1), C)
    for error in ranks_of(2).errors(call, (2,), Placed(SCORES, placements), labels, {}):
        assert error.startswith("IndexError: labels must be in [0, 23)"), error


def test_classes_sharded_by_two_dimensions_of_the_mesh(ranks_of: RanksOf) -> None:
    scores = Placed(SCORES, (Shard(1), Shard(1)))
    for error in ranks_of(4).errors(call, (2, 2), scores, LABELS, {}):
        assert error.startswith("ValueError: scores must be sharded over their classes by one dim")


def test_a_shard_and_a_dtensor(ranks_of: RanksOf) -> None:
    scores = Placed(SCORES, (Shard(1),))
    for start in (0, 12):
        shard = ClassShard(start=start, total=C)
        for error in ranks_of(2).errors(call, (2,), scores, LABELS, {"shard": shard}):
            assert error.startswith("ValueError: shard must be None for a DTensor")


@pytest.mark.parametrize("name", ["labels", "weight", "margin"])
def test_plain_scores_with_another_argument_that_is_a_dtensor(name: str, ranks_of: RanksOf) -> None:
    tensors = {"labels": LABELS, "weight": WEIGHT, "margin": WEIGHT}
    options = {name: Placed(tensors[name], (Replicate(),))}
    labels = options.pop("labels", LABELS)
    for error in ranks_of(2).errors(call, (2,), SCORES, labels, options):
        assert "DTensor" in error


def train(loss: Loss, sharded: bool) -> list[Any]:
    """The losses and the weight after some steps of a linear classifier."""
    torch.manual_seed(0)
    head = torch.nn.Linear(9, C)
    inputs, labels = random_scores(16, 9), random_labels(16, n=C)
    if sharded:
        mesh = mesh_of((3,))
        parallelize_module(head, mesh, ColwiseParallel(use_local_output=False))
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0, momentum=0.9)
    losses = []
    for _ in range(5):
        out = loss(head(inputs), labels)
        optimizer.zero_grad()
        out.backward()
        optimizer.step()
        losses.append(out.detach())
    found = [*losses, head.weight.detach()]
    return [x.full_tensor() for x in found] if sharded else found


@every_loss
def test_a_head_of_which_each_rank_has_some_columns(loss: Loss, ranks_of: RanksOf) -> None:
    expected = train(loss, False)
    assert expected[4] < expected[0]
    for found in ranks_of(3)(train, loss, True):
        torch.testing.assert_close(found, expected)

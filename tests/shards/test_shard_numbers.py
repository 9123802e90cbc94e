"""The losses of shards are those of all classes, and as accurate, on either backend of a CPU and on both at once."""

from __future__ import annotations

import math
from dataclasses import replace
from inspect import signature

import pytest
import torch
from accuracy import assert_promised
from adversarial import cases
from losses import (
    Loss,
    each,
    every_loss,
    exactly_equal,
    one_of_each,
    random_labels,
    random_scores,
    variants,
)
from simulation import each_rank, whole
from torch import Tensor

import triton_topk.losses
from triton_topk import ops
from triton_topk.batch import Batch
from triton_topk.losses import LOSSES, SmoothSVM

N = 23
# of two, three and four ranks, even and uneven; ranks with fewer classes than k, and with none
SHARDS = [[0], [0, 12], [0, 8, 16], [0, 6, 12, 18], [0, 1, 2], [0, 0, 22, 23], [0, 23]]
every_shard = pytest.mark.parametrize("starts", SHARDS, ids=str)


def checked(loss: Loss) -> triton_topk.losses.Loss:
    """The loss of the operators, with hits."""
    defaults = {"k": 5, "q": 0.7, "mix": 0.5, "tau": 1.0, "margin": 1.0, "gradient": "exact"}
    options = {"ignore_index": -100, "reduction": "none", "return_topk_hits": True}
    given = defaults | options | loss.options
    of = LOSSES[loss.name].checked
    return of(**{name: given.get(name) for name in signature(of).parameters if name != "n_classes"})


def hard_rows() -> tuple[Tensor, Tensor]:
    """Rows with ties, masked classes, few classes, none, NaN, infinities, an ignored one and one of no class."""
    scores, labels = random_scores(12, N), random_labels(12, n=N)
    scores[0, :15] = -math.inf
    scores[1] = scores[1].round()
    scores[2] = 0
    scores[3] = -math.inf
    scores[3, labels[3]] = 1
    scores[4, (labels[4] + 1) % N] = math.nan
    scores[5, (labels[5] + 1) % N] = math.inf
    scores[6] = -math.inf
    scores[7, labels[7]] = -math.inf
    scores[8, labels[8]] = math.inf
    scores[9, 4] = 1e4
    labels[10] = -100
    return scores, labels


def assert_the_whole(
    loss: Loss, batch: Batch, starts: list[int], backend: str, rtol: float = 1e-6
) -> None:
    """Compare with the loss of all classes, computed in float64 by the eager backend."""
    losses, hits, gradient = whole(checked(loss), batch, starts, backend)
    in_float64 = batch._replace(scores=batch.scores.double())
    eager = replace(checked(loss), backend="eager")
    wanted, wanted_hits, wanted_gradient = ops.way_to("_with_gradient", True)(eager, in_float64)
    torch.testing.assert_close(losses.double(), wanted, rtol=rtol, atol=rtol, equal_nan=True)
    assert hits is not None
    assert torch.equal(hits, wanted_hits)
    assert torch.equal(gradient.isnan(), wanted_gradient.isnan())
    largest = wanted_gradient.abs().nan_to_num().amax(1, keepdim=True)
    rounding = torch.finfo(gradient.dtype).eps if gradient.dtype.itemsize == 2 else 0
    wrong = (gradient.double() - wanted_gradient).nan_to_num().abs() - rounding * largest
    assert (wrong <= 2 * rtol * largest).all()


@pytest.mark.exhaustive(one_in=3)
@pytest.mark.usefixtures("poison")
@each(variants(1, 3, 10, 20))
@every_shard
def test_every_loss(loss: Loss, starts: list[int], chosen_backend: str) -> None:
    assert_the_whole(loss, Batch(*hard_rows()), starts, chosen_backend)


@each(one_of_each(5))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype(loss: Loss, dtype: torch.dtype, chosen_backend: str) -> None:
    scores, labels = hard_rows()
    rtol = 1e-13 if dtype == torch.float64 else 1e-6
    assert_the_whole(loss, Batch(scores.to(dtype), labels), [0, 6, 12, 18], chosen_backend, rtol)


@each(one_of_each(3))
def test_weights_margins_and_a_normalizer(loss: Loss, chosen_backend: str) -> None:
    scores, labels = random_scores(9, N), random_labels(9, n=N)
    labels[2] = -100
    batch = Batch(
        scores,
        labels,
        weight=torch.linspace(0.5, 2, N),
        sample_weight=torch.linspace(1, 3, 9),
        margins=torch.linspace(0, 2, N).expand(9, N),
        normalizer=torch.tensor(4.0),
    )
    assert_the_whole(loss, batch, [0, 8, 16], chosen_backend)


@pytest.mark.parametrize("tau", [1e-3, 1e3])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_large_k_and_both_ends_of_tau(k: int, tau: float, chosen_backend: str) -> None:
    batch = Batch(random_scores(5, 90), random_labels(5, n=90))
    assert_the_whole(Loss("smooth_svm", k=k, tau=tau), batch, [0, 40, 41], chosen_backend)


@pytest.mark.parametrize(("k", "n"), [(1, 7), (2, 40), (5, 200), (10, 200)])
def test_as_accurate_as_without_shards(k: int, n: int, chosen_backend: str) -> None:
    def compute(scores: Tensor, labels: Tensor, loss: SmoothSVM) -> tuple[Tensor, Tensor]:
        starts = [0, 1, n // 3, n // 2]
        losses, _, gradient = whole(loss, Batch(scores, labels), starts, chosen_backend)
        return losses, gradient

    assert_promised(cases(k, n), k, n, compute=compute)


@every_loss
def test_ranks_with_different_backends(loss: Loss) -> None:
    batch = Batch(*hard_rows())
    mixed = each_rank(checked(loss), batch, [0, 8, 16], ["native", "eager", "native"])
    alike = each_rank(checked(loss), batch, [0, 8, 16], ["native"] * 3)
    for (_, hits, gradient), (_, same_hits, same) in zip(mixed, alike, strict=True):
        torch.testing.assert_close(gradient, same, rtol=2e-6, atol=2e-6, equal_nan=True)
        exactly_equal(hits, same_hits)


@every_loss
def test_a_row_alone_and_in_a_batch(loss: Loss, chosen_backend: str) -> None:
    scores, labels = hard_rows()
    together = whole(checked(loss), Batch(scores, labels), [0, 8, 16], chosen_backend)
    for i in range(len(labels)):
        row = Batch(scores[i : i + 1], labels[i : i + 1])
        alone = whole(checked(loss), row, [0, 8, 16], chosen_backend)
        exactly_equal(alone, [x[i : i + 1] for x in together], equal_nan=True)


@each([*one_of_each(3), Loss("lq_loss", k=2)])
@pytest.mark.parametrize("starts", [[0, 0, 3, 4], [0, 1, 2], [0, 4]], ids=str)
def test_rank_of_a_masked_label(loss: Loss, starts: list[int], chosen_backend: str) -> None:
    """Classes of lower shards that are masked, too, come before it; what fills up a summary does not."""
    scores = torch.full((8, 6), -math.inf)
    scores[:6, 4] = 1
    scores[3:6, 0] = 0
    labels = torch.tensor([0, 1, 5, 1, 3, 5, 0, 3])
    assert_the_whole(loss, Batch(scores, labels), starts, chosen_backend)


@every_loss
def test_denormal_scores(loss: Loss, chosen_backend: str) -> None:
    """The score that has the gradient of the hard loss is found among those of all shards."""
    batch = Batch(random_scores(12, N) * 1e-42, random_labels(12, n=N))
    assert_the_whole(loss, batch, [0, 8, 16], chosen_backend)

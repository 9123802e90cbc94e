"""A row has the same bits whatever stands beside it and however many threads there are."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from losses import Loss, each, exactly_equal, random_labels, random_scores, variants
from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.losses import SmoothSVM
from triton_topk.native import launch

# short rows, of which a block has eight, and long ones; both enough for three threads
SHAPES = [(2000, 50), (24, 4100)]
LOSSES = [*variants(5), Loss("smooth_svm", k=40, margin=torch.linspace(0, 2, 50))]


def results(loss: Loss, scores: Tensor, labels: Tensor) -> list[Tensor]:
    """Losses, gradient and hits of each row."""
    leaf = scores.detach().requires_grad_()
    found, hits = loss(leaf, labels, reduction="none", return_topk_hits=True, backend="native")
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    return [found.detach(), gradient, *hits]


def fits(loss: Loss, n: int) -> Loss:
    """The loss with as many margins as there are classes."""
    margin = loss.options.get("margin")
    if margin is None:
        return loss
    return Loss(loss.name, **loss.options | {"margin": margin[torch.arange(n) % len(margin)]})


@pytest.mark.exhaustive(one_in=3)
@each(LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_alone_and_in_a_batch(loss: Loss, shape: tuple[int, int], threads: int) -> None:
    loss = fits(loss, shape[1])
    scores, labels = random_scores(*shape), random_labels(shape[0], n=shape[1])
    torch.set_num_threads(threads)
    whole = results(loss, scores, labels)
    torch.set_num_threads(1)
    for row in (0, 1, 7, 8, 9, 13, shape[0] // 2, shape[0] - 1):
        one = slice(row, row + 1)
        alone = results(loss, scores[one], labels[one])
        exactly_equal(alone, [x[one] for x in whole])
    some = slice(3, 19)
    exactly_equal(results(loss, scores[some], labels[some]), [x[some] for x in whole])


@pytest.mark.exhaustive(one_in=2)
@each(LOSSES)
@pytest.mark.parametrize("shape", [(19, 50), (6, 4100)])
def test_a_row_beside_rows_that_are_ignored_or_nan(loss: Loss, shape: tuple[int, int]) -> None:
    loss = fits(loss, shape[1])
    scores, labels = random_scores(*shape), random_labels(shape[0], n=shape[1])
    expected = results(loss, scores, labels)
    garbage = [(1, math.nan), (2, math.inf), (4, -math.inf)]
    for row, value in garbage:
        scores[row, ::3] = value
    scores[4] = -math.inf
    labels[3] = -100
    scores[3] = math.nan
    found = results(loss, scores, labels)
    others = torch.tensor([row not in (1, 2, 3, 4) for row in range(shape[0])])
    exactly_equal([x[others] for x in found], [x[others] for x in expected])
    assert found[0][[1, 2, 4]].isnan().all()
    assert found[0][3] == 0
    assert (found[1][3] == 0).all()


@pytest.mark.exhaustive(one_in=2)
@each(LOSSES)
@pytest.mark.parametrize("shape", [(11, 50), (2, 4100)])
def test_what_was_in_the_memory_does_not_matter(
    loss: Loss, shape: tuple[int, int], poison: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = fits(loss, shape[1])
    scores, labels = random_scores(*shape), random_labels(shape[0], n=shape[1])
    scores[1, 3:] = -math.inf
    labels[1] = 1

    def filled_with(byte: int) -> Any:
        return SimpleNamespace(
            uint8=np.uint8, empty=lambda size, dtype: np.full(size, byte, dtype), nan=np.nan
        )

    found = []
    for byte in (0, 255, 127):
        monkeypatch.setattr(launch, "np", filled_with(byte))
        found.append(results(loss, scores, labels))
    for other in found[1:]:
        exactly_equal(other, found[0])


@each(LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gradient_is_that_of_float32_rounded_once(loss: Loss, dtype: torch.dtype) -> None:
    scores, labels = random_scores(300, 50, dtype=dtype), random_labels(300, n=50)
    narrow, wide = results(loss, scores, labels), results(loss, scores.float(), labels)
    exactly_equal(narrow, [wide[0], wide[1].to(dtype), *wide[2:]])


@pytest.mark.parametrize("n", [50, 4100])
@pytest.mark.parametrize("k", [1, 5, 16, 40])
def test_equal_scores_have_equal_gradients(k: int, n: int) -> None:
    scores, labels = random_scores(20, n).round(), random_labels(20, n=n)
    for loss in variants(k):
        _, gradient, *_ = results(loss, scores, labels)
        others = torch.ones(scores.shape, dtype=torch.bool).scatter_(1, labels[:, None], False)
        for row in range(20):
            for value in scores[row].unique():
                same = gradient[row][others[row] & (scores[row] == value)]
                assert (same == same[:1]).all()


def test_labels_that_are_not_ignored_are_counted() -> None:
    scores, labels = random_scores(9, 50), random_labels(9, n=50)
    labels[:4] = -100
    out = []
    for divided in ({"uncounted": -100}, {"divisor": 5.0}, {"normalizer": torch.tensor(5.0)}):
        out.append([torch.full((9,), math.nan), torch.full_like(scores, math.nan)])
        losses, gradient = out[-1]
        batch = Batch(scores, labels, **divided)
        launch.run(batch, SmoothSVM(5, 1.0, 1.0), losses=losses, gradient=gradient)
    exactly_equal(out[0], out[1])
    exactly_equal(out[0], out[2])

"""The hard top-k SVM loss against exact arithmetic, and its special cases."""

from __future__ import annotations

import math

import pytest
import torch
from adversarial import cases
from torch import Tensor
from torch.nn import functional as F

import triton_topk
from bench.exact import exact_hard_svm

pytestmark = pytest.mark.usefixtures("chosen_backend", "poison")

SHAPES = [(1, 2), (1, 13), (2, 3), (5, 6), (5, 24), (16, 64), (60, 70)]


def run(scores: Tensor, labels: Tensor, k: int, margin: float = 1.0) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their gradient (N, C)."""
    scores = scores.detach().clone().requires_grad_()
    losses = triton_topk.hard_svm(scores, labels, k, margin=margin, reduction="none")
    return losses.detach(), *torch.autograd.grad(losses.sum(), scores)


def truth(scores: Tensor, labels: Tensor, k: int, margin: float) -> tuple[Tensor, Tensor]:
    exact = [
        exact_hard_svm(row, label, k, margin=margin)
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    losses = torch.tensor([float(loss) for loss, _ in exact], dtype=torch.float64)
    gradients = torch.tensor([[float(x) for x in row] for _, row in exact], dtype=torch.float64)
    return losses, gradients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_against_the_truth(k: int, n: int, dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for case in cases(k, n):
        scores = case.scores.to(dtype)
        losses, gradients = run(scores, case.labels, k, case.margin)
        expected = [x.to(wide) for x in truth(scores, case.labels, k, case.margin)]
        rtol = 2 * torch.finfo(wide).eps
        assert losses.dtype == wide
        assert gradients.dtype == dtype
        # float32: margin + (s_[k] - s_y)/k, rounded once; the gradient 1/(k ties), rounded once
        torch.testing.assert_close(losses, expected[0], rtol=rtol, atol=0, msg=case.name)
        torch.testing.assert_close(
            gradients,
            expected[1].to(dtype),
            rtol=max(rtol, torch.finfo(dtype).eps),
            atol=0,
            msg=case.name,
        )


def test_multiclass_hinge_is_k_1() -> None:
    generator = torch.Generator().manual_seed(0)
    for scores in (
        torch.randn(50, 7, generator=generator),
        torch.randint(-2, 3, (50, 7), generator=generator).float() * 1.3,
    ):
        labels = torch.arange(50) % 7
        scores.requires_grad_()
        others = scores.scatter(1, labels[:, None], -math.inf)
        own = scores.gather(1, labels[:, None]).squeeze(1)
        # amax, too, shares the gradient among ties
        hinge = F.relu(1 + others.amax(1) - own)
        (gradient,) = torch.autograd.grad(hinge.sum(), scores)
        assert (hinge > 0).any()
        assert (hinge == 0).any()
        losses, ours = run(scores, labels, 1)
        torch.testing.assert_close(losses, hinge.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours, gradient)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_smooth_svm_goes_to_it(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    scores = 3 * torch.randn(40, 9, generator=generator, dtype=torch.float64)
    # ties, but none of the pivot with the corner
    scores[:20] = scores[:20].round() + 0.1 * torch.arange(20)[:, None]
    labels = torch.arange(40) % 9
    hard, hard_gradient = run(scores, labels, k, 0.7)
    scores.requires_grad_()
    tau = 1e-4
    smooth = triton_topk.smooth_svm(scores, labels, k, tau=tau, margin=0.7, reduction="none")
    smooth.sum().backward()
    assert (smooth - hard).abs().max() <= tau * (math.log(9) + math.log(2))
    # of random rows the distance to the next score, and to the corner, is rarely less than 1e-3
    near = (scores.grad - hard_gradient).abs().amax(1) < 1e-6
    assert near[:20].all()
    assert near.sum() >= 38


def test_ties_and_the_corner() -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0, 1.0, 1.0]]).repeat(4, 1)
    labels = torch.tensor([0, 1, 2, 1])
    losses, gradients = run(scores, labels, 2, 0.5)
    # s_[2]: 1, shared by three; for label 1: violation 0, the corner, then beyond
    third = 1 / 6
    assert losses.tolist() == [1.0, 0.0, 0.5, 0.0]
    assert gradients[0].tolist() == pytest.approx([-0.5, 0.0, third, third, third])
    assert gradients[1].tolist() == [0.0] * 5
    assert gradients[2].tolist() == [0.0, 0.0, -0.5, 0.25, 0.25]


def test_masked_classes() -> None:
    inf = math.inf
    scores = torch.tensor([[0.0, 1.0, -inf, -inf], [-inf, 1.0, 2.0, -inf], [-inf, 1.0, -inf, -inf]])
    losses, gradients = run(scores, torch.tensor([0, 0, 0]), 2)
    assert losses[:2].tolist() == [0.0, inf]
    assert gradients[:2].tolist() == [[0.0] * 4, [-0.5, 0.5, 0.0, 0.0]]
    assert losses[2].isnan()
    assert gradients[2].isnan().all()


def test_rows_with_nan_and_infinity() -> None:
    torch.manual_seed(0)
    scores = torch.randn(7, 6)
    labels = torch.tensor([1, 2, 3, 4, 0, 1, 5])
    clean_losses, clean_gradients = run(scores, labels, 2)
    scores[0, 1] = math.nan  # the label
    scores[1, 0] = math.nan
    scores[2, 3] = math.inf  # the label
    scores[3, 0] = math.inf
    scores[4] = -math.inf
    # far above every other class, where the loss would be 0
    scores[5, 1], scores[5, 0] = 100.0, math.nan
    losses, gradients = run(scores, labels, 2)
    assert losses[:6].isnan().all()
    assert gradients[:6].isnan().all()
    assert losses[6] == clean_losses[6]
    assert torch.equal(gradients[6], clean_gradients[6])

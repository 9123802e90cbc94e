"""The Lq loss against 60 digits, and its special cases."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from accuracy_lq import assert_promised, errors
from adversarial_lq import QS, Case, cases, truth
from torch import Tensor
from torch.nn import functional as F

import triton_topk
from triton_topk import reference

pytestmark = pytest.mark.usefixtures("chosen_backend", "poison")


def run(scores: Tensor, labels: Tensor, q: float, **arguments: object) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their gradient (N, C)."""
    scores = scores.detach().clone().requires_grad_()
    losses = triton_topk.lq_loss(scores, labels, q, reduction="none", **arguments)
    return losses.detach(), *torch.autograd.grad(losses.sum(), scores)


@pytest.mark.parametrize("n", [2, 3, 10, 100])
@pytest.mark.parametrize("q", QS)
def test_float32(q: float, n: int) -> None:
    assert_promised(cases(n), q)


@pytest.mark.parametrize("q", QS)
def test_float32_of_many_classes(q: float) -> None:
    assert_promised(islice(cases(2000), 2, None, 5), q)


@pytest.mark.parametrize("name", ["lq_loss", "smooth_svm"])
def test_a_million_classes(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(2, 10**6, generator=generator)
    labels, options = torch.tensor([5, 10**6 - 1]), {"q": 0.7} if name == "lq_loss" else {"k": 1}
    found, expected = scores.clone().requires_grad_(), scores.double().requires_grad_()
    loss = getattr(triton_topk, name)(found, labels, reduction="none", backend="eager", **options)
    true_loss = getattr(reference, name)(expected, labels, **options)
    torch.testing.assert_close(loss.double(), true_loss, rtol=5e-7, atol=0)
    loss.sum().backward()
    true_loss.sum().backward()
    wrong = (found.grad - expected.grad).abs().amax(1)
    assert (wrong <= 1e-6 * expected.grad.abs().amax(1)).all()


@pytest.mark.parametrize("n", [2, 10, 100])
@pytest.mark.parametrize("q", QS)
def test_float64(q: float, n: int) -> None:
    for e in errors(cases(n), q, torch.float64):
        # a distance of 700 between two scores has a rounding of 8e-14
        assert e.loss <= 1e-13, e
        assert e.gradient <= 1e-13, e
        assert e.entry <= 1e-13, e


@pytest.mark.parametrize("truncation", [1e-30, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("q", QS)
def test_truncated(q: float, truncation: float) -> None:
    for n in (2, 10):
        # not where rounding decides on which side p_y is
        clear = [case for case in cases(n) if not _straddles(case, truncation)]
        assert len(clear) > 30
        assert_promised(clear, q, truncation=truncation)


def _straddles(case: Case, truncation: float) -> bool:
    log_p = case.scores.log_softmax(1).gather(1, case.labels[:, None])
    return bool(((log_p - math.log(truncation)).abs() < 1e-5).any())


@pytest.mark.parametrize("q", QS)
def test_both_sides_of_the_truncation(q: float) -> None:
    constant = (1 - 0.5**q) / q if q else math.log(2)
    scores = torch.tensor([[0.0, 0.0], [-1e-6, 0.0], [-1000.0, 0.0], [-math.inf, 0.0], [1e-6, 0.0]])
    losses, gradients = run(scores, torch.zeros(5, dtype=torch.long), q, truncation=0.5)
    expected, expected_gradients = run(scores, torch.zeros(5, dtype=torch.long), q)
    # q = 1e-7 costs 1 - 0.5**q half of float64's digits
    torch.testing.assert_close(losses[:4], torch.full((4,), constant), rtol=1e-6, atol=0)
    assert (gradients[:4] == 0).all()
    assert losses[4] == expected[4]
    assert torch.equal(gradients[4], expected_gradients[4])
    assert gradients[4].abs().min() > 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_is_q_0(dtype: torch.dtype) -> None:
    for case in cases(10):
        scores = case.scores.to(dtype).requires_grad_()
        expected = F.cross_entropy(scores, case.labels, reduction="none")
        (expected_gradient,) = torch.autograd.grad(expected.sum(), scores)
        losses, gradient = run(scores, case.labels, 0.0)
        # what F.cross_entropy loses where p_y is almost 1
        atol = 4 * torch.finfo(dtype).eps * max(1, scores[scores.isfinite()].abs().max().item())
        torch.testing.assert_close(losses, expected.detach(), rtol=1e-6, atol=atol, msg=case.name)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=atol, msg=case.name)


def test_one_minus_p_is_q_1() -> None:
    for case in cases(10):
        p = case.scores.softmax(1).gather(1, case.labels[:, None]).squeeze(1)
        losses, _ = run(case.scores.float(), case.labels, 1.0)
        torch.testing.assert_close(losses.double(), 1 - p, rtol=1e-6, atol=1e-15, msg=case.name)


def test_q_of_1e_minus_7_is_almost_cross_entropy() -> None:
    compared = 0
    for case in cases(10):
        losses, gradients = run(case.scores.float(), case.labels, 1e-7)
        true_losses, true_gradients = truth(case, 0.0)
        # beyond, q log p_y / 2 itself is more
        near = true_losses < 15
        compared += int(near.sum())
        torch.testing.assert_close(
            losses[near].double(), true_losses[near], rtol=2e-6, atol=1e-37, msg=case.name
        )
        largest = true_gradients[near].abs().amax(1, keepdim=True)
        wrong = (gradients[near] - true_gradients[near]).abs()
        assert (wrong <= 3e-6 * largest + 1e-37).all(), case.name
    assert compared > 40


@pytest.mark.parametrize("q", [0.0, 1e-310, 2.3e-308, 1e-300, 1e-45, 1e-38, 1e-30, 1e-10])
def test_no_jump_on_the_way_to_q_0(q: float) -> None:
    scores = torch.tensor([[1000.0, 0, 0], [50, 0, 0], [1, 2, 3], [-50, 0, 0], [-1000, 0, 0]])
    for dtype in (torch.float32, torch.float64):
        wide = scores.to(dtype)
        losses, gradients = run(wide, torch.zeros(5, dtype=torch.long), q)
        expected, expected_gradients = run(wide, torch.zeros(5, dtype=torch.long), 0.0)
        # 1000 q / 2 for the largest q
        torch.testing.assert_close(losses, expected, rtol=6e-7, atol=0)
        torch.testing.assert_close(gradients, expected_gradients, rtol=6e-7, atol=0)


@pytest.mark.parametrize("q", [0.0, 5e-324, 1e-300, 1e-20, 1e-9])
def test_the_truncated_loss_has_no_jump_on_the_way_to_q_0(q: float) -> None:
    truncated = triton_topk.lq_loss(torch.zeros(1, 8), torch.tensor([0]), q, truncation=0.5)
    assert truncated == torch.tensor(2.0).log()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("q", QS)
def test_half_precision_is_float32_inside(q: float, dtype: torch.dtype) -> None:
    for case in cases(10):
        narrow = case.scores.to(dtype)
        losses, gradients = run(narrow, case.labels, q)
        expected, expected_gradients = run(narrow.float(), case.labels, q)
        assert losses.dtype == torch.float32
        assert gradients.dtype == dtype
        assert torch.equal(losses, expected), case.name
        assert torch.equal(gradients, expected_gradients.to(dtype)), case.name
        assert gradients.isfinite().all(), case.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gap", [30.0, 100.0, 1000.0])
def test_gradient_where_p_underflows(gap: float, dtype: torch.dtype) -> None:
    scores = torch.tensor([[0.0, gap, -1.0], [gap, 0.0, -gap]], dtype=dtype)
    for q in QS:
        _, gradients = run(scores, torch.tensor([0, 0]), q)
        factor = math.exp(-q * gap)
        expected = torch.tensor([-factor, factor, 0.0], dtype=torch.float64).to(dtype)
        tolerance = max(1e-4 if q * gap > 1 else 1e-6, torch.finfo(dtype).eps)
        torch.testing.assert_close(gradients[0], expected, rtol=tolerance, atol=1e-12)
        assert (gradients[1].float().abs() < 1e-12).all()


def test_rows_with_nan_and_infinity() -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 5)
    labels = torch.tensor([1, 2, 3, 4, 0, 1])
    clean = run(scores, labels, 0.7)
    scores[0, 1] = math.nan  # the label
    scores[1, 0] = math.nan
    scores[2, 3] = math.inf  # the label
    scores[3, 0] = math.inf
    scores[4] = -math.inf
    for q, truncation in ((0.0, None), (0.7, None), (1.0, 0.5), (0.7, 1e-3)):
        losses, gradients = run(scores, labels, q, truncation=truncation)
        assert losses[:5].isnan().all()
        assert gradients[:5].isnan().all()
        assert losses[5].isfinite()
        assert gradients[5].isfinite().all()
    losses, gradients = run(scores, labels, 0.7)
    assert losses[5] == clean[0][5]
    assert torch.equal(gradients[5], clean[1][5])


def test_masked_classes() -> None:
    inf = math.inf
    scores = torch.tensor([[-inf, 1.0, 1.0], [2.0, -inf, -inf], [2.0, 2.0, -inf]])
    labels = torch.tensor([0, 0, 0])
    losses, gradients = run(scores, labels, 0.5)
    assert losses.tolist() == pytest.approx([2.0, 0.0, 2 - math.sqrt(2)], rel=1e-6)
    half = math.sqrt(0.5) / 2
    assert gradients[:2].tolist() == [[0.0] * 3] * 2
    assert gradients[2].tolist() == pytest.approx([-half, half, 0.0], rel=1e-6)
    losses, gradients = run(scores, labels, 0.0)
    assert losses[0] == inf
    assert gradients[0].tolist() == [-1.0, 0.5, 0.5]

"""The smooth top-k SVM kernel against the truth and against its own contract."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from accuracy import assert_promised, errors
from adversarial import cases
from running import LAYOUTS, difficult_rows, run
from torch import Tensor

import triton_topk
from triton_topk import eager
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config
from triton_topk.losses import SmoothSVM

# Infinities and NaN that a GPU makes silently and a later selection drops; NumPy, which the
# interpreter computes with, reports them.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def svm(k: int, order: int | None = None) -> SmoothSVM:
    return SmoothSVM(k, 1.0, 1.0, order)


def assert_same(
    scores: Tensor,
    labels: Tensor,
    k: int,
    config: Config | None = None,
    order: int | None = None,
    **kwargs: object,
) -> None:
    """The kernel's answer is that of the eager backend, which has its own tests of everything."""
    losses, gradient = run(launch, scores, labels, svm(k, order), config, **kwargs)
    expected_losses, expected_gradient = run(eager, scores, labels, svm(k, order), **kwargs)
    torch.testing.assert_close(losses, expected_losses, equal_nan=True)
    torch.testing.assert_close(gradient, expected_gradient, atol=2e-6, rtol=1e-4, equal_nan=True)


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize(
    ("k", "n"),
    [
        (1, 2), (1, 13), (2, 3), (2, 30), (3, 4), (3, 50), (4, 5), (5, 6), (5, 7), (5, 24), (5, 100),
        (6, 30), (7, 8), (8, 9), (8, 40), (9, 12), (10, 14), (10, 40), (11, 13), (12, 13),
        (13, 20), (16, 17), (16, 20), (16, 64),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("many_rows")
def test_float32(k: int, n: int) -> None:
    assert_promised(cases(k, n), k, n, backend="triton")


@pytest.mark.parametrize(("k", "n"), [(1, 13), (5, 24), (16, 20)])
@pytest.mark.usefixtures("many_rows")
def test_float64(k: int, n: int) -> None:
    for e in errors(cases(k, n), torch.float64, backend="triton"):
        assert e.loss <= 1e-12, e
        assert e.gradient <= 1e-12, e


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 40), (5, 16), (5, 70), (16, 33)])
def test_every_layout(k: int, n: int, layout: str) -> None:
    config = LAYOUTS[layout]
    torch.manual_seed(k + n)
    scores = torch.randn(5, n)
    scores[3:] = (scores[3:] * 2).round()  # ties everywhere
    assert_same(scores, torch.randint(n, (5,)), k, config)


@pytest.mark.parametrize("tau", [0.01, 1.0, 100.0])
def test_the_largest_coefficients_that_are_not_scaled(tau: float) -> None:
    k, n = 16, 1217
    assert 0.9e36 < math.comb(n - 1, k) < 1e36
    torch.manual_seed(0)
    # all equal, nearly, and not
    scores = torch.randn(3, n) * torch.tensor([[0.0], [1e-3], [1.0]])
    labels = torch.tensor([0, 600, n - 1])
    losses, gradient = run(launch, scores, labels, replace(svm(k), tau=tau))
    expected = run(eager, scores.double(), labels, replace(svm(k), tau=tau))
    torch.testing.assert_close(losses.double(), expected[0], rtol=5e-7, atol=0)
    error = (gradient.double() - expected[1]).abs().amax(1)
    assert (error <= 1e-6 * expected[1].abs().amax(1)).all()


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize(("k", "n"), [(1, 9), (2, 3), (5, 24), (9, 40)])
def test_taylor(k: int, n: int, order: int) -> None:
    torch.manual_seed(order)
    assert_same(torch.randn(5, n) * 3, torch.randint(n, (5,)), k, order=order)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 50).to(dtype)
    labels = torch.randint(50, (6,))
    losses, gradient = run(launch, scores, labels, svm(5))
    expected_losses, expected = run(launch, scores.float(), labels, svm(5))
    torch.testing.assert_close(losses, expected_losses)  # another layout, another order of sums
    # the interpreter cuts off where a GPU rounds
    torch.testing.assert_close(gradient, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_gradcheck_of_the_kernel() -> None:
    torch.manual_seed(0)
    for k, n in ((1, 4), (3, 9), (5, 6)):
        scores = torch.randn(3, n, dtype=torch.float64, requires_grad=True)
        labels = torch.randint(n, (3,))

        def loss(scores: Tensor, labels: Tensor = labels, k: int = k) -> Tensor:
            return triton_topk.smooth_svm(scores, labels, k, backend="triton", reduction="none")

        assert torch.autograd.gradcheck(loss, scores, fast_mode=True)


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("k", [1, 5])
def test_masked_nan_infinite_ignored_and_wrong_labels(k: int, layout: str) -> None:
    scores, labels, known, poisoned, clean = difficult_rows()
    expected_losses, expected = run(eager, scores, known, svm(k))
    losses, gradient = run(launch, scores, labels, svm(k), LAYOUTS[layout])
    assert losses[poisoned].isnan().all()
    assert gradient[poisoned].isnan().all()
    torch.testing.assert_close(losses[clean], expected_losses[clean])
    torch.testing.assert_close(gradient[clean], expected[clean])
    assert losses[3] == math.inf
    assert losses[8] == 0
    assert (gradient[8] == 0).all()
    if k == 5:  # more than the others that are left
        assert losses[4] == 0


@pytest.mark.usefixtures("many_rows")
def test_fewer_classes_than_top_beside_ties_at_the_largest_tau() -> None:
    # k others are left, one less than Top: what stands in for the last of Top has weight at such a tau
    k, scores, labels = 6, torch.zeros(2, 40), torch.tensor([0, 0])
    scores[0, k + 1 :] = -torch.inf
    loss = partial(triton_topk.smooth_svm, k=k, tau=1e37, reduction="none")
    found = loss(scores, labels, backend="triton")
    torch.testing.assert_close(found, loss(scores, labels, backend="eager"))


@pytest.mark.parametrize("tau", [1e-37, 1e-3, 1.0])
@pytest.mark.parametrize("k", [1, 2])
def test_a_loss_in_range_whose_share_of_tau_is_not(k: int, tau: float) -> None:
    scores = torch.zeros(1, 9)
    scores[0, 1 : k + 1] = 3e38
    losses, _ = run(launch, scores, torch.tensor([0]), replace(svm(k), tau=tau))
    torch.testing.assert_close(losses, scores[:, 1] / k)


def test_row_alone_and_in_a_batch_have_the_same_bits() -> None:
    torch.manual_seed(0)
    scores = torch.randn(9, 37)
    labels = torch.randint(37, (9,))
    losses, gradient = run(launch, scores, labels, svm(5))
    for i in range(9):
        alone = run(launch, scores[i : i + 1], labels[i : i + 1], svm(5))
        assert torch.equal(alone[0], losses[i : i + 1])
        assert torch.equal(alone[1], gradient[i : i + 1])


def test_equal_scores_have_equal_gradients() -> None:
    scores = torch.tensor([[3.0, 3, 3, 3, 3, 3, 1, 1, 0, 3]])
    for k in (2, 5):
        gradient = run(launch, scores, torch.tensor([8]), svm(k))[1]
        assert gradient[0, [0, 1, 2, 3, 4, 5, 9]].unique().numel() == 1
        assert gradient[0, [6, 7]].unique().numel() == 1


def test_weight_normalizer_and_upstream() -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 20)
    labels = torch.tensor([3, 4, -100, 19, 0, 3])
    assert_same(
        scores,
        labels,
        3,
        weight=torch.rand(20),
        sample_weight=torch.rand(6, dtype=torch.float64),
        normalizer=torch.tensor(2.5),
        upstream=torch.randn(6),
    )


def test_rows_of_any_stride() -> None:
    torch.manual_seed(0)
    wide = torch.randn(5, 40)
    labels = torch.randint(20, (5,))
    assert_same(wide[:, 3:23], labels, 3)
    assert_same(wide[:1, :20].expand(5, 20), labels, 3)


def test_autograd_through_the_kernel() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([[1, 2], [-100, 4]])
    weight = torch.rand(9), torch.rand(2, 1, 2)
    for reduction in ("none", "sum", "mean"):
        gradients = []
        for backend in ("triton", "eager"):
            scores = torch.linspace(-2, 2, 36).sin().reshape(2, 9, 2).requires_grad_()
            loss = triton_topk.smooth_svm(
                scores, labels, 3, weight=weight, reduction=reduction, backend=backend
            )
            (3 * loss.sum()).backward(retain_graph=True)
            loss.sum().backward()
            gradients.append(scores.grad)
        torch.testing.assert_close(*gradients)


def test_no_rows() -> None:
    scores = torch.empty(0, 7, requires_grad=True)
    loss = triton_topk.smooth_svm(scores, torch.empty(0, dtype=torch.long), 3, backend="triton")
    loss.backward()
    assert loss.isnan()
    assert scores.grad is not None
    assert scores.grad.shape == (0, 7)


def test_more_classes_than_a_row_has_parts() -> None:
    n = 2**22 + 1
    scores = torch.zeros(1, 1).expand(2, n)
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=f"cannot hold C={n} classes for k=2"):
        triton_topk.smooth_svm(scores, labels, 2, backend="triton")
    # without insisting, the eager backend: all scores equal, u_k = k / (C - k)
    z = 1 + math.log((n - 2) / 2)
    loss = triton_topk.smooth_svm(scores, labels, 2)
    assert loss.item() == pytest.approx(z + math.log1p(math.exp(-z)), rel=1e-6)


@pytest.mark.usefixtures("many_rows")
def test_coefficients_that_have_to_be_scaled() -> None:
    k, n = 16, 1300
    torch.manual_seed(0)
    scores, labels = torch.randn(5, n), torch.randint(n, (5,))
    assert math.comb(n - 1, k) > 1e36
    assert_same(scores, labels, k)
    assert_same(scores.round(), labels, k)


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize("k", [16, 5])
def test_long_row_of_equal_scores(k: int) -> None:
    # the largest coefficients there can be, and hundreds of ties that are not of Top; u_k = k / (C - k)
    n = 150_000
    scores = torch.zeros(1, n, requires_grad=True)
    loss = triton_topk.smooth_svm(scores, torch.tensor([0]), k, backend="triton")
    loss.backward()
    z = 1 + math.log((n - k) / k)
    assert loss.item() == pytest.approx(z + math.log1p(math.exp(-z)), rel=5e-7)
    g = 1 / (k * (1 + math.exp(-z)))
    assert scores.grad is not None
    assert scores.grad[0, 0].item() == pytest.approx(-g, rel=5e-7)
    others = scores.grad[0, 1:].unique()
    assert others.numel() == 1
    # the errors of k u's add up; with the ties multiplied one by one it is off by more
    assert others.item() == pytest.approx(g / (n - 1), rel=k * 5e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 5, 10, 16])
def test_how_long_rows_may_be(k: int, dtype: torch.dtype) -> None:
    longest = 256 * 16_384
    assert launch.obstacle(svm(k), longest, dtype) is None
    assert (
        launch.obstacle(svm(k), longest + 1, dtype)
        == f"cannot hold C={longest + 1} classes for k={k}"
    )

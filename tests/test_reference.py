"""The references agree with each other, with the exact loss, and with what the paper says of it."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from adversarial import cases, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from triton_topk.reference import (
    exact_smooth_svm,
    hard_svm,
    log_esp_brute_force,
    log_esp_divide_and_conquer,
    log_esp_summation,
    smooth_svm,
)

ALGORITHMS = ("brute_force", "summation", "divide_and_conquer")


def random_scores(n_rows: int, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n_rows, n, generator=generator, dtype=torch.float64)


def loss_and_gradient(scores: Tensor, labels: Tensor, **arguments) -> tuple[Tensor, Tensor]:
    scores = scores.detach().requires_grad_()
    losses = smooth_svm(scores, labels, **arguments)
    return losses.detach(), *torch.autograd.grad(losses.sum(), scores)


@pytest.mark.parametrize("k", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 11])
def test_algorithms_agree(n: int, k: int) -> None:
    x = random_scores(3, n)
    x[1, : n // 2] = -math.inf
    x[2] = -math.inf
    expected = log_esp_brute_force(x, k)
    assert expected.shape == (3, k + 1)
    assert expected[0].isfinite().tolist() == [j <= n for j in range(k + 1)]
    assert expected[2].tolist() == [0.0] + [-math.inf] * k
    for log_esp in (log_esp_summation, log_esp_divide_and_conquer):
        torch.testing.assert_close(log_esp(x, k), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("n", [100, 257])
def test_summation_agrees_with_divide_and_conquer_on_long_rows(n: int) -> None:
    x = 10 * random_scores(2, n)
    torch.testing.assert_close(
        log_esp_divide_and_conquer(x, 40), log_esp_summation(x, 40), rtol=1e-13, atol=1e-13
    )


def test_equal_scores_give_binomial_coefficients() -> None:
    log_sigma = log_esp_divide_and_conquer(torch.zeros(30, dtype=torch.float64), 30)
    expected = torch.tensor([math.log(math.comb(30, j)) for j in range(31)], dtype=torch.float64)
    torch.testing.assert_close(log_sigma, expected, rtol=1e-13, atol=1e-13)


def test_any_leading_shape() -> None:
    x = random_scores(6, 7)
    for log_esp in (log_esp_brute_force, log_esp_summation, log_esp_divide_and_conquer):
        expected = log_esp(x, 3)
        torch.testing.assert_close(log_esp(x.view(2, 3, 7), 3), expected.view(2, 3, 4))
        torch.testing.assert_close(log_esp(x[0], 3), expected[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 9), (3, 4), (5, 12)])
def test_smooth_svm_is_exact_in_float64(algorithm: str, k: int, n: int) -> None:
    for case in cases(k, n):
        arguments = {"k": k, "tau": case.tau, "margin": case.margin, "algorithm": algorithm}
        losses, gradients = loss_and_gradient(case.scores, case.labels, **arguments)
        exact_losses, exact_gradients = truth(case)
        # The references do not take the pivot out: exponents that cancel leave their rounding.
        size = case.scores[case.scores.isfinite()].abs().max().item() / case.tau
        rounding = 1e-10 + 1e-15 * size
        torch.testing.assert_close(
            losses,
            exact_losses,
            rtol=rounding,
            atol=rounding * case.tau,
            msg=lambda text, name=case.name: f"{name}: {text}",
        )
        torch.testing.assert_close(
            gradients,
            exact_gradients,
            rtol=rounding,
            atol=rounding,
            msg=lambda text, name=case.name: f"{name}: {text}",
        )


@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_smooth_svm_is_exact_for_any_small_row(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 10), "n")
    k = data.draw(st.integers(1, n - 1), "k")
    score = st.one_of(st.sampled_from([0.0, 1.0, -math.inf]), st.floats(-20, 20, width=32))
    row = data.draw(st.lists(score, min_size=n, max_size=n), "row")
    label = data.draw(st.integers(0, n - 1), "label")
    tau = data.draw(st.sampled_from([0.1, 1.0, 7.0]), "tau")
    margin = data.draw(st.sampled_from([0.0, 0.3, 1.0]), "margin")
    exact_loss, exact_gradient = exact_smooth_svm(row, label, k, tau=tau, margin=margin)
    scores = torch.tensor([row], dtype=torch.float64)
    for algorithm in ALGORITHMS:
        losses, gradients = loss_and_gradient(
            scores, torch.tensor([label]), k=k, tau=tau, margin=margin, algorithm=algorithm
        )
        if mpmath.isnan(exact_loss):
            assert losses.isnan()
            continue
        assert losses.item() == pytest.approx(float(exact_loss), rel=1e-10, abs=1e-10)
        assert gradients[0].tolist() == pytest.approx([float(x) for x in exact_gradient], abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_smooth_svm_of_narrow_scores(dtype: torch.dtype) -> None:
    scores = random_scores(4, 10).to(dtype)
    scores[:, 3] = -math.inf
    labels = torch.tensor([0, 1, 2, 4])
    expected = smooth_svm(scores.double(), labels, 5)
    for algorithm in ALGORITHMS:
        losses, gradients = loss_and_gradient(scores, labels, k=5, algorithm=algorithm)
        assert losses.dtype == torch.float32
        assert gradients.dtype == dtype
        assert gradients.isfinite().all()
        tolerance = 20 * torch.finfo(dtype).eps
        torch.testing.assert_close(losses.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cross_entropy_is_a_special_case(algorithm: str) -> None:
    scores, labels = random_scores(8, 12), torch.arange(8)
    losses = smooth_svm(scores, labels, 1, tau=1.0, margin=0.0, algorithm=algorithm)
    torch.testing.assert_close(losses, F.cross_entropy(scores, labels, reduction="none"))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_hard_svm_is_the_limit_of_a_small_temperature(k: int) -> None:
    scores, labels = random_scores(20, 9), torch.arange(20) % 8
    scores[:, 8] = -math.inf
    hard = hard_svm(scores, labels, k, margin=0.7)
    expected = []
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        own = row.pop(label)
        expected.append(max(0, 0.7 + (sorted(row)[-k] - own) / k))
    assert hard.tolist() == pytest.approx(expected)
    for tau in (1e-2, 1e-3, 1e-4):
        smooth = smooth_svm(scores, labels, k, tau=tau, margin=0.7)
        # log sigma_k - log sigma_{k-1} is at most log n from the pivot, softplus log 2 from max.
        assert (smooth - hard).abs().max() <= tau * (math.log(9) + math.log(2))


def test_masked_rows_of_the_hard_svm() -> None:
    inf = math.inf
    scores = torch.tensor([[1.0, 2.0, -inf], [-inf, 2.0, 3.0], [-inf, -inf, 3.0]]).requires_grad_()
    losses = hard_svm(scores, torch.tensor([0, 0, 0]), 2)
    assert losses.tolist() == [0.0, inf, 0.0]
    losses[:1].sum().backward()
    assert scores.grad.tolist() == [[0.0] * 3] * 3


def test_exact_loss_with_the_label_masked() -> None:
    row = [-math.inf, 1.0, 2.0, 3.0]
    loss, gradient = exact_smooth_svm(row, 0, 2, tau=1.0, margin=1.0)
    assert loss == math.inf
    assert gradient[0] == -0.5
    assert sum(gradient) == pytest.approx(0)
    scores = torch.tensor([row], dtype=torch.float64)
    losses, gradients = loss_and_gradient(scores, torch.tensor([0]), k=2)
    assert losses.item() == math.inf
    assert gradients[0].tolist() == pytest.approx([float(x) for x in gradient])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_exact_gradient_is_the_derivative_of_the_exact_loss(k: int) -> None:
    row, tau, margin = [0.3, -1.0, 2.0, 0.3, 1.4, -math.inf], 0.8, 0.5
    _, gradient = exact_smooth_svm(row, 1, k, tau=tau, margin=margin)
    step = mpmath.mpf(10) ** -20
    for i in range(5):
        ends = []
        for sign in (-1, 1):
            with mpmath.workdps(60):
                moved = [*row[:i], row[i] + sign * step, *row[i + 1 :]]
            ends.append(exact_smooth_svm(moved, 1, k, tau=tau, margin=margin)[0])
        with mpmath.workdps(60):
            slope = (ends[1] - ends[0]) / (2 * step)
            assert abs(slope - gradient[i]) < 1e-35


@pytest.mark.parametrize(("k", "n"), [(1, 3), (2, 40), (5, 6), (5, 40), (16, 40)])
def test_exact_gradients_are_probabilities(k: int, n: int) -> None:
    for case in cases(k, n, seed=1):
        losses, gradients = truth(case)
        rows = torch.arange(len(losses))
        own = gradients[rows, case.labels]
        others = gradients.index_put((rows, case.labels), torch.zeros(()).double())
        assert ((losses >= 0) & losses.isfinite()).all(), case.name
        assert ((own <= 0) & (own >= -1 / k)).all(), case.name
        # Newton's inequality makes every P_k - P_{k-1} positive, and they add to one.
        assert ((others >= 0) & (others <= -own[:, None] * (1 + 1e-15))).all(), case.name
        torch.testing.assert_close(others.sum(1), -own, rtol=1e-14, atol=0)
        assert (gradients[case.scores.isneginf()] == 0).all(), case.name


def test_exact_loss_far_from_the_corner() -> None:
    def loss(own: float) -> mpmath.mpf:
        return exact_smooth_svm([own, 0.0, 0.0], 0, 1, tau=1e-2, margin=1.0)[0]

    with mpmath.workdps(60):
        tau = mpmath.mpf(1e-2)
        below = tau * mpmath.exp((1 - 3e3) / tau + mpmath.log(2))
        assert abs(loss(3e3) / below - 1) < 1e-50
        above = 1 + 3e3 + tau * mpmath.log(2)
        assert abs(loss(-3e3) / above - 1) < 1e-50


def test_more_digits_change_nothing() -> None:
    for case in cases(5, 24):
        row, label = case.scores[0].tolist(), int(case.labels[0])
        few, many = (
            exact_smooth_svm(row, label, 5, tau=case.tau, margin=case.margin, digits=digits)
            for digits in (40, 120)
        )
        for x, y in zip([few[0], *few[1]], [many[0], *many[1]], strict=True):
            assert abs(x - y) <= 1e-25 * abs(y), case.name


def test_cases_are_float32_values_and_come_again() -> None:
    for k, n in ((1, 2), (5, 6), (5, 40)):
        found = list(cases(k, n))
        assert len({case.name for case in found}) == len(found)
        assert all(a is b for a, b in zip(found, cases(k, n), strict=True))
        for case in found:
            assert case.scores.shape == (len(case.labels), n)
            assert case.scores.dtype == torch.float64
            assert (case.scores.float().double() == case.scores).all()
            assert case.scores.gather(1, case.labels[:, None]).isfinite().all(), case.name

"""The references agree with each other, with the exact loss, and with what the paper says of it."""

from __future__ import annotations

import math
from itertools import product

import mpmath
import pytest
import torch
from adversarial import cases, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bench.exact import exact_hard_svm, exact_lq_loss, exact_smooth_svm
from triton_topk.reference import (
    hard_svm,
    log_esp_brute_force,
    log_esp_divide_and_conquer,
    log_esp_summation,
    lq_loss,
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
    assert losses[:2].tolist() == [0.0, inf]
    assert losses[2].isnan()
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


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_exact_hard_svm_is_the_limit_of_the_exact_smooth_loss(k: int) -> None:
    rows = [[0.0, 2.0, 2.0, 2.0, 2.0, -1.0, 3.0], [0.5, 3.0, 2.0, 1.0, 0.25, 0.0, -math.inf]]
    for row in rows:
        loss, gradient = exact_hard_svm(row, 0, k, margin=1.0)
        smooth, smooth_gradient = exact_smooth_svm(row, 0, k, tau=1e-3, margin=1.0)
        # log sigma_k - log sigma_{k-1} is at most log n from the pivot; the gap of two scores, 0.25 at
        # least, is 0.25 / (k tau) in the exponent.
        assert abs(loss - smooth) <= 1e-3 * math.log(7)
        assert loss > 0
        for x, limit in zip(smooth_gradient, gradient, strict=True):
            assert abs(x - limit) < 1e-20


def test_exact_hard_svm_known_values() -> None:
    row = [1.0, 4.0, 3.0, 2.0, 3.0]
    assert exact_hard_svm(row, 0, 1, margin=1.0) == (4, [-1, 1, 0, 0, 0])
    # k = 2 and 3 fall on the tie
    for k in (2, 3):
        loss, gradient = exact_hard_svm(row, 0, k, margin=0.5)
        assert [float(x) for x in (loss, *gradient)] == pytest.approx(
            [0.5 + 2 / k, -1 / k, 0, 0.5 / k, 0, 0.5 / k], rel=1e-15
        )
    # the label's own score is not one of the ties
    assert exact_hard_svm(row, 2, 2, margin=1.0) == (1, [0, 0, -0.5, 0, 0.5])
    zero = (0, [0, 0, 0, 0, 0])
    assert exact_hard_svm(row, 1, 1, margin=1.0) == zero, "the corner itself"
    assert exact_hard_svm(row, 1, 1, margin=0.5) == zero, "beyond"


def test_exact_hard_svm_of_masked_classes() -> None:
    inf = math.inf
    assert exact_hard_svm([0.0, 1.0, -inf, -inf], 0, 2, margin=1.0) == (0, [0, 0, 0, 0])
    assert exact_hard_svm([-inf, 1.0, 2.0, -inf], 0, 2, margin=1.0) == (inf, [-0.5, 0.5, 0, 0])
    loss, gradient = exact_hard_svm([-inf, 1.0, -inf, -inf], 0, 2, margin=1.0)
    assert all(mpmath.isnan(x) for x in (loss, *gradient))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_hard_svm_is_exact(k: int) -> None:
    scores, labels = random_scores(6, 8).requires_grad_(), torch.arange(6)
    losses = hard_svm(scores, labels, k, margin=0.7)
    losses.sum().backward()
    for i, row in enumerate(scores.tolist()):
        loss, gradient = exact_hard_svm(row, i, k, margin=0.7)
        assert losses[i].item() == pytest.approx(float(loss), rel=1e-14)
        assert scores.grad[i].tolist() == pytest.approx([float(x) for x in gradient])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_hard_svm_with_ties_and_in_the_corner(k: int) -> None:
    scores, labels = random_scores(40, 8).round().requires_grad_(), torch.arange(40) % 8
    losses = hard_svm(scores, labels, k, margin=1 / k)
    losses.sum().backward()
    exact = [exact_hard_svm(row, i % 8, k, margin=1 / k) for i, row in enumerate(scores.tolist())]
    assert losses.tolist() == [float(loss) for loss, _ in exact]
    assert scores.grad.tolist() == [[float(x) for x in gradient] for _, gradient in exact]


QS = (0.0, 1e-7, 1e-3, 0.3, 0.7, 1.0)


@pytest.mark.parametrize("q", QS)
def test_exact_lq_known_values(q: float) -> None:
    for n in (2, 3, 10):
        loss, gradient = exact_lq_loss([0.3] * n, 1, q)
        with mpmath.workdps(60):
            factor = mpmath.mpf(n) ** -mpmath.mpf(q)
            expected = (1 - factor) / q if q else mpmath.log(n)
            assert abs(loss - expected) <= 1e-50
            for i, x in enumerate(gradient):
                assert abs(x - factor * (mpmath.mpf(1) / n - (i == 1))) <= 1e-58


@pytest.mark.parametrize("gap", [1e-7, 30.0, 1000.0])
@pytest.mark.parametrize("q", QS)
def test_exact_lq_of_two_classes(q: float, gap: float) -> None:
    with mpmath.workdps(1000):
        small = mpmath.exp(-mpmath.mpf(gap))
        for row, p in (([gap, 0.0], 1 / (1 + small)), ([0.0, gap], small / (1 + small))):
            loss, gradient = exact_lq_loss(row, 0, q)
            expected = (1 - p**q) / q if q else -mpmath.log(p)
            assert abs(loss / expected - 1) <= 1e-50
            for x, sign in zip(gradient, (-1, 1), strict=True):
                assert abs(x / (sign * p**q * (1 - p)) - 1) <= 1e-50


def test_exact_lq_goes_to_cross_entropy() -> None:
    row = [0.3, -40.0, 2.0, -math.inf]
    for label in range(3):
        loss, gradient = exact_lq_loss(row, label, 0.0)
        near, near_gradient = exact_lq_loss(row, label, 1e-30)
        for x, y in zip((loss, *gradient), (near, *near_gradient), strict=True):
            # 1 - q log p / 2 + ... and 1 + q log p
            assert abs(x - y) <= 50e-30 * abs(x)


@pytest.mark.parametrize("q", QS)
def test_exact_lq_gradient_is_the_derivative_of_the_exact_loss(q: float) -> None:
    row = [0.3, -1.0, 2.0, 0.3, -math.inf]
    step = mpmath.mpf(10) ** -20
    for label, truncation in product((1, 2), (None, 1e-3, 0.99)):
        _, gradient = exact_lq_loss(row, label, q, truncation=truncation)
        for i in range(4):
            ends = []
            for sign in (-1, 1):
                with mpmath.workdps(60):
                    moved = [*row[:i], row[i] + sign * step, *row[i + 1 :]]
                ends.append(exact_lq_loss(moved, label, q, truncation=truncation)[0])
            with mpmath.workdps(60):
                # in units of the loss: q = 1e-7 takes 7 of the 60 digits
                assert abs((ends[1] - ends[0]) / (2 * step) - gradient[i]) < 1e-30


@pytest.mark.parametrize("q", QS)
def test_exact_lq_of_masked_classes(q: float) -> None:
    inf = math.inf
    loss, gradient = exact_lq_loss([-inf, 1.0, 1.0], 0, q)
    assert float(loss) == (1 / q if q else inf)
    assert gradient == ([0, 0, 0] if q else [-1, 0.5, 0.5])
    assert exact_lq_loss([1.0, -inf, -inf], 0, q) == (0, [0, 0, 0])
    assert exact_lq_loss([1.0, 1.0, -inf], 0, q)[1][2] == 0
    loss, gradient = exact_lq_loss([-inf, -inf], 0, q)
    assert all(mpmath.isnan(x) for x in (loss, *gradient))


@pytest.mark.parametrize("q", QS)
def test_exact_lq_truncated(q: float) -> None:
    with mpmath.workdps(60):
        constant = (1 - mpmath.mpf(0.5) ** q) / q if q else mpmath.log(2)
    for row in ([0.0, 0.0], [0.0, 1e-7], [0.0, 1000.0], [-math.inf, 0.0]):
        loss, gradient = exact_lq_loss(row, 0, q, truncation=0.5)
        assert abs(loss - constant) <= 1e-50
        assert gradient == [0, 0]
    assert exact_lq_loss([1e-7, 0.0], 0, q, truncation=0.5) == exact_lq_loss([1e-7, 0.0], 0, q)


@pytest.mark.parametrize("truncation", [None, 0.2])
@pytest.mark.parametrize("q", QS)
def test_lq_loss_is_exact(q: float, truncation: float | None) -> None:
    scores, labels = random_scores(12, 8), torch.arange(12) % 7
    scores[:, 7] = -math.inf
    scores[0, 0] = -math.inf
    scores[1, 1] = 1000.0
    scores[2, 2] = -1000.0
    scores.requires_grad_()
    losses = lq_loss(scores, labels, q, truncation=truncation)
    losses.sum().backward()
    for i, row in enumerate(scores.tolist()):
        loss, gradient = exact_lq_loss(row, int(labels[i]), q, truncation=truncation)
        assert losses[i].item() == pytest.approx(float(loss), rel=1e-13)
        # autograd has p_y - 1
        expected = [float(x) for x in gradient]
        assert scores.grad[i].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_lq_loss_of_narrow_scores_and_nan() -> None:
    scores = random_scores(3, 6).bfloat16()
    scores[1, 4] = math.nan
    labels = torch.tensor([1, 2, 3])
    losses = lq_loss(scores, labels, 0.7, truncation=0.01)
    assert losses.dtype == torch.float32
    assert losses.isnan().tolist() == [False, True, False]
    wide = lq_loss(scores.double(), labels, 0.7, truncation=0.01)
    torch.testing.assert_close(losses, wide.float(), equal_nan=True)

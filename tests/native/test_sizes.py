"""The losses of rows of every size are those of the eager backend in float64."""

from __future__ import annotations

import math

import pytest
import torch
from accuracy import LOSS_BOUND, gradient_bound
from losses import Loss, exactly_equal, random_labels, random_scores
from torch import Tensor

pytestmark = pytest.mark.usefixtures("poison")

# Around the ends of a step, of four steps, and of the short rows of each k.
SIZES = [
    2,
    3,
    4,
    5,
    15,
    16,
    17,
    31,
    32,
    33,
    127,
    128,
    129,
    1184,
    1185,
    1824,
    1825,
    4225,
    5824,
    5825,
]
LOSSES = [
    ("smooth_svm", {}),
    ("hard_svm", {}),
    ("lq_loss", {"q": 0.7}),
    ("smooth_svm_lq", {"q": 0.7, "mix": 0.3}),
]


def rows(n: int, k: int) -> tuple[Tensor, Tensor]:
    """Rows of any kind, more than a block has, and an ignored one."""
    scores, labels = random_scores(11, n), random_labels(11, n=n)
    scores[1] = scores[1].round()
    scores[2] = 0.5
    scores[3, min(n - 1, k + 1) :] = -math.inf
    labels[3] = 0
    scores[4] *= 100
    scores[5] *= 1e-3
    scores[6, : min(k, n - 1)] += 50
    scores[7] = torch.arange(n).remainder(7) - 3.0
    scores[8, n // 2 :] = -math.inf
    labels[8] = 0
    labels[9] = -100
    return scores, labels


def compare(loss: Loss, scores: Tensor, labels: Tensor, k: int) -> None:
    losses, gradient = loss.with_gradient(scores, labels, reduction="none", backend="native")
    true_losses, true_gradient = loss.with_gradient(
        scores.double(), labels, reduction="none", backend="eager"
    )
    narrow = scores.dtype == torch.float32
    # where the loss is small, the rounding of z is that of its exponential
    of_z = 100 * torch.finfo(scores.dtype).eps
    bound = LOSS_BOUND if narrow else 1e-12
    torch.testing.assert_close(losses.double(), true_losses, rtol=bound + of_z, atol=1e-37)
    largest = true_gradient.abs().amax(1, keepdim=True)
    wrong = (gradient.double() - true_gradient).abs()
    limit = gradient_bound(k, scores.shape[1]) if narrow else 1e-12
    assert (wrong <= (limit + of_z) * largest + 1e-37).all(), (wrong / largest).max()


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [1, 5, 20, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes(n: int, k: int, dtype: torch.dtype) -> None:
    k = min(k, n - 1)
    scores, labels = rows(n, k)
    for name, options in LOSSES:
        of_k = {} if name == "lq_loss" else {"k": k}
        compare(Loss(name, **of_k, **options), scores.to(dtype), labels, k)


@pytest.mark.exhaustive(one_in=2)
@pytest.mark.parametrize(("k", "n"), [(51, 52), (51, 300), (128, 200), (256, 257), (256, 600)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_beyond_50(k: int, n: int, dtype: torch.dtype) -> None:
    scores, labels = rows(n, k)
    compare(Loss("smooth_svm", k=k), scores.to(dtype), labels, k)


def test_a_short_series_beyond_128() -> None:
    """Where all scores are equal the recursion is exact, and the series of so low an order is not."""
    scores, labels = torch.zeros(1, 300), torch.tensor([0])
    loss = Loss("smooth_svm", k=150, gradient="taylor", order=2)
    gradients = [
        loss.with_gradient(scores, labels, backend=backend)[1] for backend in ("eager", "native")
    ]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["smooth_svm", "hard_svm", "smooth_svm_lq"])
def test_a_larger_k_is_for_the_eager_backend(name: str) -> None:
    scores, labels = rows(600, 257)
    with pytest.raises(ValueError, match="backend='native' needs k <= 256, got 257"):
        Loss(name, k=257, backend="native")(scores, labels)
    loss = Loss(name, k=257)
    results = (loss(scores, labels, backend=backend) for backend in (None, "eager"))
    exactly_equal(*results)


@pytest.mark.parametrize("tau", [1e-37, 1e-20, 1e20, 1e37])
def test_both_ends_of_tau(tau: float) -> None:
    scores, labels = random_scores(11, 50, dtype=torch.float64), random_labels(11, n=50)
    # no row is near the corner, and z has no rounding that shows
    compare(Loss("smooth_svm", k=5, tau=tau, margin=100.0), scores, labels, 5)


@pytest.mark.parametrize("tau", [1e-37, 1e-33, 1e-30, 1.0])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", ["smooth_svm", "hard_svm", "smooth_svm_lq"])
def test_scores_that_are_no_normal_numbers(name: str, k: int, tau: float) -> None:
    scores, labels = random_scores(11, 50) * 3e-39, random_labels(11, n=50)
    scores[0] = -1e-40
    scores[1] = 1e-40
    scores[2, ::2] = -1e-40
    scores[3, ::2] = 1e-40
    scores[4, k:] = 0
    of_tau = {} if name == "hard_svm" else {"tau": tau}
    compare(Loss(name, k=k, margin=0.0 if k == 1 else tau, **of_tau), scores, labels, k)


@pytest.mark.parametrize("spread", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize(("name", "options"), LOSSES)
def test_spreads(name: str, options: dict[str, float], spread: float) -> None:
    scores, labels = random_scores(11, 50), random_labels(11, n=50)
    # the label is below, where the losses are no exponentials
    scores.scatter_(1, labels[:, None], -9)
    of_k = {} if name == "lq_loss" else {"k": 5}
    compare(Loss(name, **of_k, **options), spread * scores, labels, 5)


@pytest.mark.parametrize("k", [51, 200])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_scores_whose_arithmetic_is_in_float64(k: int, dtype: torch.dtype) -> None:
    scores, labels = random_scores(11, 256, dtype=dtype), random_labels(11, n=256)
    loss = Loss("smooth_svm", k=k)
    found, gradient = loss.with_gradient(scores, labels, backend="native")
    expected, wide = loss.with_gradient(scores.double(), labels, backend="eager")
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, wide.to(dtype))

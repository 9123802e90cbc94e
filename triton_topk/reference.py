"""The definitions are slow and obvious, for checks and second derivatives. Each is a formula of its paper.

The top-k losses: Berrada, Zisserman, Kumar, "Smooth Loss Functions for Deep Top-k Classification",
ICLR 2018. Throughout, sigma_j of a set of scores is the j-th elementary symmetric polynomial of
their exponentials: the sum, over all subsets of j scores, of the exponential of the subset's sum.
sigma_0 is 1. A score of -inf is a masked class: its exponential is 0.

The Lq loss: Zhang, Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
Noisy Labels", NeurIPS 2018. Its p are the softmax of the scores.

The functions are differentiable by autograd, without NaN for masked classes. They
compute in the dtype of the scores, in float32 for half precision ones.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM

Algorithm = Literal["brute_force", "summation", "divide_and_conquer"]

# Stands for log 0: the gradient of logaddexp(-inf, -inf) is NaN. Float32 can add 10**8 of them.
LOG_ZERO = -1e30


def _with_finite_log_zero(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=LOG_ZERO)


def _with_infinite_log_zero(log_sigma: Tensor) -> Tensor:
    return log_sigma.masked_fill(log_sigma < LOG_ZERO / 2, -torch.inf)


def log_esp_brute_force(x: Tensor, k: int) -> Tensor:
    """Return log sigma_0, ..., log sigma_k of x, by definition: shape (..., n) to (..., k + 1).

    sigma_j(x) = sum over S of size j of exp(sum of x_i over i in S).
    """
    x = _with_finite_log_zero(x)
    log_sigma = []
    for j in range(k + 1):
        subsets = [x[..., list(subset)].sum(-1) for subset in combinations(range(x.shape[-1]), j)]
        none_that_large = [torch.full_like(x[..., 0], LOG_ZERO)]
        log_sigma.append(torch.stack(subsets or none_that_large).logsumexp(0))
    return _with_infinite_log_zero(torch.stack(log_sigma, -1))


def log_esp_summation(x: Tensor, k: int) -> Tensor:
    """Return log sigma_0, ..., log sigma_k of x, class by class: shape (..., n) to (..., k + 1).

    sigma_j <- sigma_j + exp(x_i) sigma_{j-1}, in log-space: the summation algorithm that the paper
    compares its own with.
    """
    x = _with_finite_log_zero(x)
    log_one = torch.zeros_like(x[..., :1])
    log_sigma = torch.cat((log_one, log_one.expand(*x.shape[:-1], k) + LOG_ZERO), -1)
    for x_i in x.unbind(-1):
        with_i = torch.logaddexp(log_sigma[..., 1:], x_i[..., None] + log_sigma[..., :-1])
        log_sigma = torch.cat((log_one, with_i), -1)
    return _with_infinite_log_zero(log_sigma)


def log_esp_divide_and_conquer(x: Tensor, k: int) -> Tensor:
    """Return log sigma_0, ..., log sigma_k of x, the paper's way: shape (..., n) to (..., k + 1).

    sigma_j is the coefficient of t^j in the product of the 1 + exp(x_i) t. Halves of the product
    are multiplied with each other, level by level, cut off at degree k, in log-space.
    """
    x = _with_finite_log_zero(x)
    # Coefficients come first: slices by degree are then contiguous, and so are whole halves.
    polynomials = torch.stack((torch.zeros_like(x), x))[: k + 1]
    while polynomials.shape[-1] > 1:
        if polynomials.shape[-1] % 2:
            one = torch.full_like(polynomials[..., :1], LOG_ZERO)
            one[0] = 0
            polynomials = torch.cat((polynomials, one), -1)
        left, right = polynomials.chunk(2, -1)
        polynomials = _log_product(left, right, k)
    missing = k + 1 - polynomials.shape[0]
    log_sigma = F.pad(polynomials.squeeze(-1).movedim(0, -1), (0, missing), value=LOG_ZERO)
    return _with_infinite_log_zero(log_sigma)


def _log_product(left: Tensor, right: Tensor, k: int) -> Tensor:
    degree = left.shape[0] - 1
    reverse = right.flip(0)
    coefficients = []
    for j in range(min(2 * degree, k) + 1):
        low, high = max(0, j - degree), min(j, degree)
        pairs = left[low : high + 1] + reverse[degree - j + low : degree - j + high + 1]
        # logaddexp has no second derivative where one term is far larger than the other
        coefficients.append(pairs[0] if low == high else pairs.logsumexp(0))
    return torch.stack(coefficients)


_LOG_ESP: dict[Algorithm, Callable[[Tensor, int], Tensor]] = {
    "brute_force": log_esp_brute_force,
    "summation": log_esp_summation,
    "divide_and_conquer": log_esp_divide_and_conquer,
}


def smooth_svm(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    *,
    tau: float = 1.0,
    margin: float | Tensor = 1.0,
    algorithm: Algorithm = "divide_and_conquer",
) -> Tensor:
    """Return the smooth top-k SVM loss of each row: scores (N, C) floating, labels (N,) int64, to (N,).

    L = tau log(1 + exp(z)), z = margin/tau + log sigma_k - log sigma_{k-1} - s_y/(k tau), where
    sigma is over the s_i/(k tau) of all classes but the label y. The paper has the logarithm of a
    ratio of two sums over subsets of k classes, all of them over those with y; the 1 is the latter.
    Fewer than k unmasked other classes give 0, or NaN if the label is masked too.
    """
    others = scores.scatter(1, labels[:, None], -torch.inf)
    log_sigma = _LOG_ESP[algorithm](others / (k * tau), k)
    s_y = scores.gather(1, labels[:, None]).squeeze(1) / (k * tau)
    z = margin / tau + log_sigma[:, k] - log_sigma[:, k - 1] - s_y
    z = z.masked_fill(log_sigma[:, k].isneginf() & ~s_y.isneginf(), -torch.inf)
    # beyond the threshold softplus is z, to the last digit of float64
    return tau * F.softplus(z, threshold=40)


def hard_svm(scores: Tensor, labels: Tensor, k: int, *, margin: float | Tensor = 1.0) -> Tensor:
    """Return the hard top-k SVM loss of each row: scores (N, C) floating, labels (N,) int64, to (N,).

    L = max(0, margin + (s_[k] - s_y)/k), s_[k] the k-th largest score of the classes but y: what
    the smooth loss becomes as tau goes to 0. Ties share its gradient; where the loss is 0 there is
    none. Fewer than k unmasked other classes give 0, or NaN if the label is masked too.
    """
    s_y = scores.gather(1, labels[:, None]).squeeze(1)
    others = scores.scatter(1, labels[:, None], -torch.inf)
    # As the largest of what is not above it: amax shares its gradient among ties.
    above = others > others.topk(k).values[:, -1:]
    pivot = others.masked_fill(above, -torch.inf).amax(1)
    violation = margin + (pivot - s_y) / k
    few = pivot.isneginf() & ~s_y.isneginf()
    return violation.masked_fill(few, 0).relu()  # without a gradient at 0, which clamp has


def lq_loss(scores: Tensor, labels: Tensor, q: float, *, truncation: float | None = None) -> Tensor:
    """Return the Lq loss of each row: scores (N, C) floating, labels (N,) int64, to (N,).

    L = (1 - p_y^q)/q, for q = 0 its limit -log p_y. With a truncation t it is (1 - t^q)/q, without
    a gradient, wherever p_y <= t.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    log_p = scores.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    losses = _lq_of_log(log_p, q)
    if truncation is None:
        return losses
    log_t = log_p.new_tensor(truncation).log()
    return torch.where(log_p <= log_t, _lq_of_log(log_t, q), losses)


def _lq_of_log(log_p: Tensor, q: float) -> Tensor:
    return -log_p if q == 0 else -torch.expm1(q * log_p) / q


def smooth_svm_lq(
    scores: Tensor,
    labels: Tensor,
    k: int = 5,
    q: float = 0.7,
    *,
    mix: float = 0.5,
    tau: float = 1.0,
    margin: float | Tensor = 1.0,
    truncation: float | None = None,
) -> Tensor:
    """Return the mixture of each row: scores (N, C) floating, labels (N,) int64, to (N,).

    L = mix L_smooth_svm + (1 - mix) L_q.
    """
    svm = smooth_svm(scores, labels, k, tau=tau, margin=margin)
    return mix * svm + (1 - mix) * lq_loss(scores, labels, q, truncation=truncation)


# The losses of the package by these definitions; a margin (N,) is added to the loss's.
DEFINITIONS: dict[type[Loss], Callable[[Any, Tensor, Tensor, Tensor | float], Tensor]] = {
    SmoothSVM: lambda loss, rows, label, margin: smooth_svm(
        rows, label, loss.k, tau=loss.tau, margin=loss.margin + margin
    ),
    HardSVM: lambda loss, rows, label, margin: hard_svm(
        rows, label, loss.k, margin=loss.margin + margin
    ),
    Lq: lambda loss, rows, label, _: lq_loss(rows, label, loss.q, truncation=loss.truncation),
    Mixture: lambda loss, rows, label, margin: smooth_svm_lq(
        rows,
        label,
        loss.k,
        loss.q,
        mix=loss.mix,
        tau=loss.tau,
        margin=loss.margin + margin,
        truncation=loss.truncation,
    ),
}

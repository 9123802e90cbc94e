"""The definitions are slow and obvious, for checks and second derivatives. Each is a formula of its paper.

The top-k losses: Berrada, Zisserman, Kumar, "Smooth Loss Functions for Deep Top-k Classification",
ICLR 2018. Throughout, sigma_j of a set of scores is the j-th elementary symmetric polynomial of
their exponentials: the sum, over all subsets of j scores, of the exponential of the subset's sum.
sigma_0 is 1. A score of -inf is a masked class: its exponential is 0.

The Lq loss: Zhang, Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
Noisy Labels", NeurIPS 2018. Its p are the softmax of the scores.

The functions on tensors are differentiable by autograd, without NaN for masked classes. They
compute in the dtype of the scores, in float32 for half precision ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
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


def exact_smooth_svm(
    row: Sequence[float],
    label: int,
    k: int,
    *,
    tau: float,
    margin: float,
    digits: int = 60,
) -> tuple[Any, list[Any]]:
    """Return loss and gradient of `smooth_svm` for one row of n floats, as mpmath numbers: the truth.

    With P_j(i), the probability that i is among j others drawn as sigma_j weighs them, and
    g = sigmoid(z): dL/ds_y = -g/k and dL/ds_i = (g/k) (P_k(i) - P_{k-1}(i)). P_j(i) is
    exp(s_i/(k tau)) sigma_{j-1}(without i)/sigma_j, and 1 - P_j(i) is sigma_j(without i)/sigma_j.
    """
    import mpmath  # type: ignore[import-untyped,unused-ignore]

    mp = mpmath.mp
    with mp.workdps(digits):
        others = [i for i, s in enumerate(row) if i != label and s != -torch.inf]
        if len(others) < k:
            # with the label masked too, 0/0: as cross-entropy of a row of -inf
            trivial = mp.nan if row[label] == -torch.inf else mp.zero
            return trivial, [trivial] * len(row)

        temperature = mp.mpf(tau)
        # Of n others sigma_i(e) is sigma_{n-i}(1/e) times the product of e.  So e and k may be 1/e and n + 1 - k, if
        # the logarithm of sigma_k/sigma_{k-1} changes its sign: the smaller of the two takes less time.
        degree = min(k, len(others) + 1 - k)
        sign = 1 if degree == k else -1
        e = [mp.exp(sign * mp.mpf(row[i]) / (k * temperature)) for i in others]
        before = _polynomials(e, degree, mp.one)
        after = _polynomials(e[::-1], degree, mp.one)[::-1]
        sigma = after[0]
        s_y = mp.mpf(row[label]) / (k * temperature)
        z = margin / temperature + sign * mp.log(sigma[degree] / sigma[degree - 1]) - s_y
        g = 1 / (1 + mp.exp(-z))
        gradient = [mp.zero] * len(row)
        gradient[label] = -g / k
        # Ties share their gradient.
        difference: dict[Any, Any] = {}
        for i, e_i, left, right in zip(others, e, before[:-1], after[1:], strict=True):
            if e_i not in difference:
                # A recursion that divides e_i out of sigma would cancel; this adds positive terms.
                a, b, c = (
                    mp.fdot(left[: j + 1], right[j::-1]) if j >= 0 else mp.zero
                    for j in (degree - 2, degree - 1, degree)
                )
                # P_k - P_{k-1} as P_k (1 - P_{k-1}) - P_{k-1} (1 - P_k). By Newton's inequality
                # a c <= b^2 (k-1)/k: of all the digits, at most log10(k) are lost.
                difference[e_i] = e_i * (b * b - a * c) / (sigma[degree] * sigma[degree - 1])
            gradient[i] = g / k * difference[e_i]
        return temperature * mp.log1p(mp.exp(z)), gradient


def _polynomials(e: Sequence[Any], k: int, one: Any) -> list[list[Any]]:
    """Return sigma_0, ..., sigma_k of the first 0, 1, ..., n of e."""
    sigma = [one] + [0 * one] * k
    found = [sigma]
    for e_i in e:
        sigma = [one, *(upper + e_i * lower for lower, upper in pairwise(sigma))]
        found.append(sigma)
    return found


def exact_hard_svm(
    row: Sequence[float], label: int, k: int, *, margin: float, digits: int = 60
) -> tuple[Any, list[Any]]:
    """Return loss and gradient of `hard_svm` for one row of n floats, as mpmath numbers: the truth.

    Where s_[k] has ties they share its gradient 1/k equally, as they do in the smooth loss at any tau.
    Where the loss is 0 so is the gradient, also in the corner itself.
    """
    import mpmath

    mp = mpmath.mp
    with mp.workdps(digits):
        gradient = [mp.zero] * len(row)
        others = sorted((s for i, s in enumerate(row) if i != label), reverse=True)
        pivot = others[k - 1]
        if pivot == -torch.inf:
            trivial = mp.nan if row[label] == -torch.inf else mp.zero
            return trivial, [trivial] * len(row)

        violation = margin + (mp.mpf(pivot) - row[label]) / k
        if violation <= 0:
            return mp.zero, gradient
        tied = [i for i, s in enumerate(row) if s == pivot and i != label]
        gradient[label] = -mp.one / k
        for i in tied:
            gradient[i] = mp.one / (k * len(tied))
        return violation, gradient


def exact_lq_loss(
    row: Sequence[float],
    label: int,
    q: float,
    *,
    truncation: float | None = None,
    digits: int = 60,
) -> tuple[Any, list[Any]]:
    """Return loss and gradient of `lq_loss` for one row of n floats, as mpmath numbers: the truth.

    dL/ds_i = p_y^q (p_i - [i = y]). 1 - p_y is added up from the other classes, so that nothing
    cancels where p_y is almost 1. A masked label has p_y = 0; a row of masked classes is 0/0, NaN.
    """
    import mpmath

    mp = mpmath.mp
    with mp.workdps(digits):
        largest = max(row)
        if largest == -torch.inf:
            return mp.nan, [mp.nan] * len(row)

        e = [mp.exp(mp.mpf(s) - largest) for s in row]
        rest = mp.fsum(e[:label] + e[label + 1 :])
        total = rest + e[label]
        log_p = -mp.log1p(rest / e[label]) if e[label] else -mp.inf

        def lq_of_log(log_p: Any) -> Any:
            return -log_p if q == 0 else -mp.expm1(q * log_p) / q

        if truncation is not None and e[label] <= truncation * total:
            return lq_of_log(mp.log(truncation)), [mp.zero] * len(row)
        factor = mp.power(e[label] / total, q)
        gradient = [factor * e_i / total for e_i in e]
        gradient[label] = -factor * rest / total
        return lq_of_log(log_p), gradient

"""The losses and gradients of a row are computed with mpmath in so many digits that they are the truth.

The formulas are those of triton_topk/reference.py, with gradients written out.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Any

import mpmath

mp = mpmath.mp


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
    with mp.workdps(digits):
        others = [i for i, s in enumerate(row) if i != label and s != -inf]
        if len(others) < k:
            # with the label masked too, 0/0: as cross-entropy of a row of -inf
            trivial = mp.nan if row[label] == -inf else mp.zero
            return trivial, [trivial] * len(row)

        temperature = mp.mpf(tau)
        # Of n others sigma_i(e) is sigma_{n-i}(1/e) times the product of e.  So e and k may be 1/e and n + 1 - k, if
        # the logarithm of sigma_k/sigma_{k-1} changes its sign: the smaller of the two takes less time.
        degree = min(k, len(others) + 1 - k)
        sign = 1 if degree == k else -1
        e = [mp.exp(sign * mp.mpf(row[i]) / (k * temperature)) for i in others]
        before = _polynomials(e, degree)
        after = _polynomials(e[::-1], degree)[::-1]
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


def _polynomials(e: Sequence[Any], k: int) -> list[list[Any]]:
    """Return sigma_0, ..., sigma_k of the first 0, 1, ..., n of e."""
    sigma = [mp.one] + [mp.zero] * k
    found = [sigma]
    for e_i in e:
        sigma = [mp.one, *(upper + e_i * lower for lower, upper in pairwise(sigma))]
        found.append(sigma)
    return found


def exact_hard_svm(
    row: Sequence[float], label: int, k: int, *, margin: float, digits: int = 60
) -> tuple[Any, list[Any]]:
    """Return loss and gradient of `hard_svm` for one row of n floats, as mpmath numbers: the truth.

    Where s_[k] has ties they share its gradient 1/k equally, as they do in the smooth loss at any tau.
    Where the loss is 0 so is the gradient, also in the corner itself.
    """
    with mp.workdps(digits):
        gradient = [mp.zero] * len(row)
        others = sorted((s for i, s in enumerate(row) if i != label), reverse=True)
        pivot = others[k - 1]
        if pivot == -inf:
            trivial = mp.nan if row[label] == -inf else mp.zero
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
    with mp.workdps(digits):
        largest = max(row)
        if largest == -inf:
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

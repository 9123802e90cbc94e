"""A loss is one term, or the sum of two in the mixture; the kernel has the numbers of each in a record.

The Lq loss is a function of the same z that the smooth SVM has for k = 1, tau = 1 and margin 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM
from triton_topk.polynomial import largest_coefficient

SMOOTH, HARD, LQ = range(3)
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

TERM = np.dtype(
    [
        ("kind", "i8"),
        ("k", "i8"),
        ("t", "i8"),  # size of Top
        ("degree", "i8"),  # of the polynomials
        ("segment", "i8"),  # steps of a lane whose polynomial is in range
        ("order", "i8"),  # p of the Taylor-type gradient; 0: the exact one
        ("share", "f8"),  # of the mixture
        ("rate", "f8"),  # log2(e) / (k tau)
        ("tau", "f8"),
        ("margin", "f8"),
        ("q", "f8"),
        ("cut", "f8"),  # -log p_y from which on a truncated loss is constant, or NaN
        ("cut_loss", "f8"),
        ("threshold", "f8"),  # of e u_k, from which on the Taylor-type gradient is a series
        ("negligible", "f8"),  # share of the first coefficient of the gradient
    ],
    align=True,
)

# Beyond, coefficients of the gradient are out of range, and in float32 lose too many digits; and lists of the k largest
# scores, into which a score is inserted in k steps, take longer than PyTorch's selection.
_MAX_K = {FLOAT32: 50, FLOAT64: 256}
# With a larger rate differences of scores below the normal numbers count; a smaller rate is below them itself.
_RATES_FLOAT32 = 1.2e-38, 1e30
_RANGE = {FLOAT32: 1e38, FLOAT64: 1e300}  # of coefficients of polynomials
_MAX_SEGMENT = 1024
_LOG2_E = math.log2(math.e)


def real_of(loss: Loss, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the arithmetic on scores of a type: a wider one where that has not the range."""
    k, tau = getattr(loss, "k", 1), getattr(loss, "tau", 1.0)
    least, largest = _RATES_FLOAT32
    in_range = k <= _MAX_K[FLOAT32] and least < 1 / (k * tau) < largest
    return dtype if in_range else FLOAT64


@lru_cache(maxsize=256)
def obstacle(loss: Loss, n: int) -> str | None:
    """Return why the loss of n scores takes too much time or is out of the range of float64, or None."""
    k, order = getattr(loss, "k", 1), getattr(loss, "order", None) or 1
    if k > _MAX_K[FLOAT64]:
        return f"needs k <= {_MAX_K[FLOAT64]}, got {k}"
    has_polynomial = not isinstance(loss, HardSVM)
    if has_polynomial and largest_coefficient(n, k + order - 1) > _RANGE[FLOAT64]:
        return f"needs polynomials in the range of float64, got k={k}, C={n}"
    return None


@lru_cache(maxsize=256)
def terms_of(loss: Loss, n: int, real: np.dtype[Any]) -> npt.NDArray[np.void]:
    """Return the terms of a loss of n scores, for arithmetic in a type."""
    parts: list[tuple[Loss, float]] = [(loss, 1.0)]
    if isinstance(loss, Mixture):
        parts = [(loss.svm, loss.mix), (loss.lq, 1 - loss.mix)]
    out = np.zeros(len(parts), TERM)
    for term, (part, share) in zip(out, parts, strict=True):
        for name, value in _NUMBERS[type(part)](part, n, real).items():
            term[name] = value
        term["share"] = share
        term["segment"] = _segment(int(term["degree"]), _RANGE[real])
        term["negligible"] = np.finfo(real).eps / 64
    return out


def _of_lq(loss: Lq, n: int, real: np.dtype[Any]) -> dict[str, float]:
    numbers = {"kind": LQ, "k": 1, "t": 1, "degree": 1, "rate": _LOG2_E, "tau": 1.0, "q": loss.q}
    if loss.truncation is None:
        return numbers | {"cut": math.nan}
    return numbers | {"cut": -math.log(loss.truncation), "cut_loss": loss.truncated_loss}


def _of_hard_svm(loss: HardSVM, n: int, real: np.dtype[Any]) -> dict[str, float]:
    numbers = {"kind": HARD, "k": loss.k, "t": loss.k, "margin": loss.margin}
    # the polynomial is there to find NaN
    return numbers | {"degree": 1, "rate": _LOG2_E, "tau": 1.0}


def _of_smooth_svm(loss: SmoothSVM, n: int, real: np.dtype[Any]) -> dict[str, float]:
    k, order = loss.k, loss.order or 0
    numbers = {"kind": SMOOTH, "k": k, "t": min(n - 1, loss.top_size), "margin": loss.margin}
    numbers |= {"degree": k + max(order - 1, 0), "rate": _LOG2_E / (k * loss.tau)}
    numbers |= {"tau": loss.tau, "order": order}
    return numbers | {"threshold": loss.series_threshold(float(np.finfo(real).eps))}


_NUMBERS: dict[type[Loss], Callable[[Any, int, np.dtype[Any]], dict[str, float]]] = {
    SmoothSVM: _of_smooth_svm,
    HardSVM: _of_hard_svm,
    Lq: _of_lq,
}


def _segment(degree: int, largest: float) -> int:
    steps = 4
    while steps < _MAX_SEGMENT and largest_coefficient(steps + 4, degree) < largest:
        steps += 4
    return steps

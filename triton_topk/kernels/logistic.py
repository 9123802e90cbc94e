"""The logistic function and its logarithm are computed from a row's odds, with the digits of both ends."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# exp2 of it is 0 in every type.
_UNDERFLOW = tl.constexpr(-3000.0)


@triton.jit
def exp2(x, dtype: tl.constexpr):
    """Return 2^x of a float64 x, in another type, without the error of |x| 2^-24 that rounding x would make."""
    x = tl.where(x < _UNDERFLOW, _UNDERFLOW, x)
    whole = tl.floor(x)
    return tl.exp2((x - whole).to(dtype)) * tl.exp2(whole.to(dtype))


@triton.jit
def reciprocal(x):
    """Return 1 / x for x > 0 with 1 / x in range, in four instructions."""
    y = tl.rsqrt(x)
    y = y * y
    return tl.fma(y, tl.fma(-x, y, 1.0), y)


@triton.jit
def logistic(log_odds, factor):
    """Return softplus(z) in float64 and sigmoid(z) in the type of factor >= 0, for z = log_odds + log factor.

    log_odds: float64, as a difference of large numbers.  Of 1 and exp(log_odds) the smaller is taken relative to
    the larger: with them as a and b, softplus(z) = max(log_odds, 0) + log(a + b factor).
    """
    positive = log_odds > 0
    small = exp2(tl.where(positive, -log_odds, log_odds) * LOG2_E, factor.dtype)
    one = tl.where(positive, small, 1.0)
    odds = tl.where(positive, factor, small * factor)
    sum_ = one + odds
    each = reciprocal(sum_)
    # what rounding took from the sum; all there is of small odds
    log_sum = tl.log(sum_) + (odds - (sum_ - one)) * each
    return tl.maximum(log_odds, 0.0) + log_sum.to(tl.float64), odds * each

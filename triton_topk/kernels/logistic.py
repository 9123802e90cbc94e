"""The logistic function and its logarithm of a row's odds, with the digits of both ends."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# exp2 of it is 0 in every type.
_UNDERFLOW = tl.constexpr(-3000.0)


@triton.jit
def exp2(x, dtype: tl.constexpr):
    """2^x of a float64 x, in another type, without the error of |x| 2^-24 that rounding x would make."""
    x = tl.where(x < _UNDERFLOW, _UNDERFLOW, x)
    whole = tl.floor(x)
    return tl.exp2((x - whole).to(dtype)) * tl.exp2(whole.to(dtype))


@triton.jit
def logistic(log_odds, factor):
    """softplus(z) in float64 and sigmoid(z) in the type of factor >= 0, of z = log_odds + log factor.

    log_odds: float64, as a difference of large numbers.
    """
    z = log_odds + tl.log(factor).to(tl.float64)
    positive = z > 0
    log2_small = tl.where(positive, -log_odds, log_odds) * LOG2_E
    small = exp2(log2_small, factor.dtype)
    small = small * tl.where(positive, 1.0 / factor, factor)
    sum_ = 1.0 + small
    log1p = tl.where(sum_ == 1.0, small, tl.log(sum_) * (small / (sum_ - 1.0)))
    return tl.maximum(z, 0.0) + log1p.to(tl.float64), tl.where(positive, 1.0, small) / sum_

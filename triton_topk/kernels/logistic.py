"""The logistic function and its logarithm of a row's odds, with the digits of both ends."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# exp2 of it is 0 in every type.
_UNDERFLOW = tl.constexpr(-3000.0)


@triton.jit
def logistic(log_odds, factor):
    """softplus(z) and sigmoid(z) of z = log_odds + log factor.

    log_odds: float64, as a difference of large numbers; factor >= 0 in the type of the result.  exp(-|z|) is
    taken as a product, the whole part of log_odds / log 2 apart: rounding z itself would cost |z| 2^-24 of it.
    """
    z = (log_odds + tl.log(factor).to(tl.float64)).to(factor.dtype)
    positive = z > 0
    log2_small = tl.where(positive, -log_odds, log_odds) * LOG2_E
    log2_small = tl.where(log2_small < _UNDERFLOW, _UNDERFLOW, log2_small)
    whole = tl.floor(log2_small)
    small = tl.exp2((log2_small - whole).to(factor.dtype)) * tl.exp2(whole.to(factor.dtype))
    small = small * tl.where(positive, 1.0 / factor, factor)
    sum_ = 1.0 + small
    log1p = tl.where(sum_ == 1.0, small, tl.log(sum_) * (small / (sum_ - 1.0)))
    return tl.maximum(z, 0.0) + log1p, tl.where(positive, 1.0, small) / sum_

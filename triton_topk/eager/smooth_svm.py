"""The smooth top-k SVM loss and its gradient are computed for any k.

The algorithm and the names are those of docs/algorithm.md and of kernels/smooth_svm.py.  Row
quantities are stored with the row last, (degree, N), so that each step on all rows is one contiguous
operation, and in float64, which holds them without a scale; scores are (N, C).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_topk import polynomial
from triton_topk.eager import large_k, odds, recursions
from triton_topk.eager.rows import Rows, infinite_as_nan
from triton_topk.losses import SmoothSVM
from triton_topk.polynomial import LANES

# Beyond, the powers of a score need the range of float64.
MAX_K_FLOAT32 = 50
# Beyond, or out of the range of float64, probabilities take less time and memory.
_MAX_K = 128
# Coefficient k - 1 is less only where fewer than k others are left, and others where nothing depends on them.
_TINY = 1e-200
# A row of no more scores is all Top, with the label at -inf: of such rows the number of operations counts.
_SHORT = 16

# A factor of Top is x + y if True, else 1 + x y.
_Factor = tuple[Tensor, bool]


def padded_width(n: int) -> int:
    """Return a width for rows of n scores that lanes divide."""
    unit = min(LANES, 1 << (n - 1).bit_length())
    return n if n <= _SHORT else -(-n // unit) * unit


def compute(rows: Rows, loss: SmoothSVM) -> Tensor:
    k, tau, order = loss.k, loss.tau, loss.order
    margin = rows.margin + loss.margin
    if k == 1:
        # the series is not needed: e u_1 = P_1 is at most 1
        softmax = odds.softmax_of(rows, tau)
        if rows.summary is not None:
            softmax = odds.of_all(softmax, rows.summary.v[0], 1 + rows.summary.r[0], tau)
        z = odds.log_odds(rows, softmax, margin, tau)
        odds.write_gradient(rows, softmax, z.sigmoid())
        return tau * F.softplus(z, threshold=40)

    others, n, label, s_y, _, scale, out, summary = rows
    degree = loss.form.degree
    if summary is None and (k > _MAX_K or not polynomial.in_range(n, degree)):
        return large_k.compute(rows, loss)
    rate = 1 / (k * tau)
    t = n if n <= _SHORT and summary is None else min(n - 1, loss.top_size)
    top, where = largest(others, t)
    v = as_columns(top) if summary is None else summary.v
    p = v[k - 1]
    pivot = p.clamp(min=torch.finfo(others.dtype).min)
    log_e = (v - pivot).mul_(rate)
    x = (-log_e.abs()).exp_()
    factors = [(x_i, i < k) for i, x_i in enumerate(x.unbind(0))]
    e = rest = is_top = None
    if summary is not None:
        # not all of a shard's largest scores are of Top
        is_top = top.double() >= v[-1].unsqueeze(1)
        e, rest = weigh(others, where, top.masked_fill(is_top, -math.inf), pivot, rate), summary.r
    elif t < n:
        e = weigh(others, where, None, pivot, rate)
        rest = polynomial.of_weights(e, degree)
    products = _products(rest, factors, degree)
    S = products[-1, 1:]  # from S_{-1} on
    S_k, S_below = S[k + 1], S[k].clamp(min=_TINY)
    u = S_below / S_k

    # -inf where fewer than k others are left
    z = ((p - s_y).add_(k * margin)).mul_(rate).sub_(u.log())
    if out is not None and scale is not None:
        g = z.sigmoid().mul_(scale).div_(k)
        if e is not None:
            coefficients = S[1 : k + 1] / S_k - S[:k] / S_below
            coefficients[k % 2 :: 2].neg_()
            _horner((coefficients * g).to(e.dtype), e[:, :n], out)
        if order is None:
            after = _products(None, factors[:0:-1], k, backwards=True)
            G = _top_gradient(products[:-1], after, x, S_k, u)
        else:
            threshold = loss.series_threshold(torch.finfo(others.dtype).eps)
            G = _top_gradient_taylor(S[1:], log_e.exp(), k, threshold)
        # A column of padding, in rows with few classes left: its gradient is 0, and so is the label's yet.
        if others.shape[1] > n:
            where = torch.where(where < n, where, label)
        of_top = (G * g).to(out.dtype).t()
        if is_top is not None:
            # equal scores have equal gradients
            at = torch.searchsorted(-v.t().contiguous(), -top.double()).clamp_(max=v.shape[0] - 1)
            of_top = torch.where(is_top, of_top.gather(1, at), out.gather(1, where))
        out.scatter_(1, where, of_top)
        out.scatter_(1, label, g.neg_().to(out.dtype).unsqueeze(1))
    return F.softplus(z, threshold=40).mul_(tau)


def as_columns(top: Tensor) -> Tensor:
    """Return the largest scores (N, t) as (t, N) in float64, +inf as NaN."""
    return infinite_as_nan(top.t().to(torch.float64, memory_format=torch.contiguous_format))


def weigh(others: Tensor, where: Tensor, left: Tensor | None, pivot: Tensor, rate: float) -> Tensor:
    """Overwrite the others with e = exp((s - p) / (k tau)), 0 of Top's, which have scores `left`, -inf by default."""
    if left is None:
        others.scatter_(1, where, -math.inf)
    else:
        others.scatter_(1, where, left)
    return others.sub_(pivot.to(others.dtype).unsqueeze(1)).mul_(rate).exp_()


def largest(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Return the t largest of each row, descending, and their columns.

    The t lanes (columns a multiple of LANES apart) with the largest maxima hold t largest scores of the
    row: in a long row, finding those first leaves few to sort.
    """
    if x.shape[1] < LANES**2 or t > LANES // 4:
        return x.topk(t, dim=1)
    lanes = x.view(x.shape[0], x.shape[1] // LANES, LANES)
    lane = lanes.amax(1).topk(t, dim=1, sorted=False).indices
    candidates = lanes.gather(2, lane.unsqueeze(1).expand(-1, lanes.shape[1], -1))
    values, at = candidates.flatten(1).topk(t, dim=1)
    return values, at // t * LANES + lane.gather(1, at % t)


def _products(
    rest: Tensor | None, factors: list[_Factor], degree: int, *, backwards: bool = False
) -> Tensor:
    """Return the products of the rest's polynomial, or of 1, with the first 0, 1, ... of the factors, or backwards.

    They have the shape (factors + 1, degree + 3, N), since two coefficients that are 0 come first.
    """
    x = factors[0][0]
    out = x.new_zeros((len(factors) + 1, degree + 3, *x.shape))
    lower, upper = out[:, :-1].unbind(0), out[:, 1:].unbind(0)
    if backwards:
        lower, upper = lower[::-1], upper[::-1]
    upper[0][1] = 1
    if rest is not None:
        upper[0][2 : 2 + rest.shape[0]] = rest
    for i, (x, large) in enumerate(factors):
        a, b = (lower[i], upper[i]) if large else (upper[i], lower[i])
        torch.addcmul(a, b, x, out=upper[i + 1])
    return out


def _horner(coefficients: Tensor, e: Tensor, out: Tensor) -> None:
    """Compute out = sum_m c_m e^m, m = k..1."""
    total, *others = coefficients.unsqueeze(-1).unbind(0)
    for c in others:
        total = torch.addcmul(c, total, e, out=out)
    torch.mul(total, e, out=out)


def _top_gradient(before: Tensor, after: Tensor, x: Tensor, S_k: Tensor, u: Tensor) -> Tensor:
    """Return P_k(i) - P_{k-1}(i) of every i in Top, from S', the product of `before` and `after`, the factors of the
    rest and of Top before i, and those after it.

    S = (x + y) S' or (1 + x y) S', so P_J is S'_{J-1} / S_J times 1 or x, 1 - P_J is S'_J / S_J times x or 1, and
    P_k (1 - P_{k-1}) - P_{k-1} (1 - P_k) has the factor x.
    """
    # coefficients k - 2, k - 1 and k
    S_without = x.new_zeros((x.shape[0], 3, x.shape[1]))
    of_before = before.unsqueeze(2).unbind(1)[2:]
    of_after = after.unfold(1, 3, 1).movedim(-1, 1).unbind(2)[::-1]
    for a, b in zip(of_before, of_after, strict=True):
        S_without.addcmul_(a, b)
    below_that, below, at_k = S_without.div_(S_k).unbind(1)
    return (below * below).addcmul_(at_k, below_that, value=-1).mul_(x).div_(u)


def _top_gradient_taylor(S: Tensor, e: Tensor, k: int, threshold: float) -> Tensor:
    """Return P_k(i) - P_{k-1}(i) of every i in Top, as the paper does it: by the series where e u_k is large."""
    u = S[:k] / S[1 : k + 1].clamp(min=_TINY)
    # 0 where fewer than j others are left
    inverse = S[k:] / S[k - 1 : -1].clamp(min=_TINY)
    return recursions.difference(e, u, inverse, threshold)

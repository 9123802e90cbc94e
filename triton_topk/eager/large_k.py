"""The smooth top-k SVM loss needs another form for k in the hundreds and beyond, where the elementary symmetric
polynomials leave the range of float64.

Each class is included with probability q_i = e_i theta / (1 + e_i theta), theta chosen per row so that
k - 1/2 classes are expected; pi_j = sigma_j theta^j / prod (1 + e_i theta) is then the probability of
j classes.  It is at most 1, and far from underflow where it is needed, around k.  In float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from triton_topk.eager import recursions
from triton_topk.eager.rows import Rows, infinite_as_nan
from triton_topk.losses import SmoothSVM


def compute(rows: Rows, loss: SmoothSVM) -> Tensor:
    k, tau, order = loss.k, loss.tau, loss.order
    others, n, label, s_y, margin, scale, out, _ = rows
    others = infinite_as_nan(others.double())
    margin = margin + loss.margin
    rate = 1 / (k * tau)
    top = others.topk(k, dim=1).values
    p = top[:, -1]
    few = p == -math.inf
    p = p.masked_fill(few, 0)
    log_e = others.sub_(p.unsqueeze(1)).mul_(rate)
    log_theta = _balance(log_e, k)
    logit = log_e.add_(log_theta.unsqueeze(1))
    # P_{k+p} / (e u) ... falls by u_k / u_{k+i} <= k / (k + i) a step: by e^-40 in all
    extra = order - 1 if order is not None else 10 + math.isqrt(81 * k)
    pi = _count_probabilities(logit, k + extra)
    u = pi[:-1] / pi[1:]  # u_j = sigma_{j-1} / sigma_j, e relative to theta

    linear = (k * margin + (p - s_y)) * rate
    z = linear - u[k - 1].log() - log_theta
    trivial = 0 * (top[:, 0].clamp(min=torch.finfo(p.dtype).min) + s_y)
    losses = (tau * (z.clamp(min=0) + (-z.abs()).exp().log1p())).where(~few, trivial)
    g = (torch.sigmoid(z) / k).where(~few, trivial)
    if out is None or scale is None:
        return losses
    g = g * scale
    # both recursions are stable for a threshold of 1, since u_j grows with j; a short series has to begin later
    threshold = 1.0 if order is None else loss.series_threshold(torch.finfo(u.dtype).eps)
    # pi underflows far below k, where P is 0, and is 0 beyond the number of classes, P being 1
    u = u.unsqueeze(-1)
    below, above = (x.nan_to_num(nan=0.0, posinf=0.0) for x in (u[:k], 1 / u[k - 1 :]))
    G = recursions.difference(logit[:, :n].exp(), below, above, threshold)
    out.copy_(torch.where(few.unsqueeze(1), g.unsqueeze(1), g.unsqueeze(1) * G))
    out.scatter_(1, label, -g.to(out.dtype).unsqueeze(1))
    return losses


def _balance(log_e: Tensor, k: int) -> Tensor:
    """Return log theta with sum_i q_i about k - 1/2, by bisection between two bounds that hold for any row
    whose k-th largest log e is 0."""
    low = torch.full_like(log_e[:, 0], -math.log(2 * log_e.shape[1]))
    high = torch.full_like(low, math.log(2 * k))
    for _ in range(20):
        middle = (low + high) / 2
        expected = torch.sigmoid(log_e + middle.unsqueeze(1)).sum(1)
        above = expected > k - 0.5
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def _count_probabilities(logit: Tensor, degree: int) -> Tensor:
    """Return pi_0..pi_degree, (degree + 1, N), the coefficients of the product of the (1 - q_i) + q_i y."""
    tree = torch.stack((torch.sigmoid(-logit), torch.sigmoid(logit)))
    while tree.shape[2] > 1:
        if tree.shape[2] % 2:
            one = torch.zeros_like(tree[..., :1])
            one[0] = 1
            tree = torch.cat((tree, one), 2)
        half = tree.shape[2] // 2
        tree = _convolve(tree[..., :half], tree[..., half:], degree)
    return torch.nn.functional.pad(tree[..., 0], (0, 0, 0, degree + 1 - tree.shape[0]))


def _convolve(a: Tensor, b: Tensor, degree: int) -> Tensor:
    d = a.shape[0]
    out = a.new_zeros((min(2 * d - 1, degree + 1), *a.shape[1:]))
    for i in range(min(d, out.shape[0])):
        width = min(d, out.shape[0] - i)
        out[i : i + width].addcmul_(a[i], b[:width])
    return out

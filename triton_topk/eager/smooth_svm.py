"""The smooth top-k SVM loss and its gradient are computed for any k.

The algorithm and the names are those of docs/algorithm.md and of kernels/smooth_svm.py.  Row
quantities are stored with the row last, (degree, N), so that each step on all rows is one contiguous
operation; scores are (N, C).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_topk.eager import large_k, odds
from triton_topk.eager.rows import Rows
from triton_topk.losses import SmoothSVM

# Beyond, the coefficients need the range of float64; far beyond, another normalisation.
MAX_K_FLOAT32 = 50
_MAX_K = 256
# A product of two polynomials is in range while no coefficient passes this.
_COEFFICIENT_LIMIT = {torch.float32: 1e30, torch.float64: 1e250}
# exp of it is still in range after a multiplication by u_j.
_EXPONENT_CAP = {torch.float32: 80.0, torch.float64: 600.0}
_TREE_WIDTH = 64


def padded_width(n: int) -> int:
    """Return a width for rows of n scores that a product tree likes."""
    unit = min(_TREE_WIDTH, 1 << (n - 1).bit_length())
    return -(-n // unit) * unit


def compute(rows: Rows, loss: SmoothSVM) -> Tensor:
    k, tau, order = loss.k, loss.tau, loss.order
    if k == 1:
        distance, minus_log_t, direction = odds.summary(rows, tau)
        z = (distance + (rows.margin + loss.margin)) / tau - minus_log_t
        odds.write_gradient(rows, direction, z.sigmoid())
        return tau * F.softplus(z, threshold=40)
    if k > _MAX_K:
        return large_k.compute(rows, loss)
    others, n, label, s_y, margin, scale, out = rows
    margin = margin + loss.margin
    rate = 1 / (k * tau)
    degree = k if order is None else k + order - 1
    top, where = _largest(others, _top_size(k, n - 1))
    others.scatter_(1, where, -math.inf)
    few = top[:, k - 1] == -math.inf
    p = top[:, k - 1].masked_fill(few, 0)
    e = others.sub_(p.unsqueeze(1)).mul_(rate).exp_()
    r, log_s = _rest_polynomial(e, k, degree)

    v = top.t().contiguous()
    masked = v == -math.inf
    power = ((v.unsqueeze(1) - v) * rate).clamp_(max=_EXPONENT_CAP[v.dtype]).exp_()
    # the difference of two -inf is none
    power.masked_fill_(masked.unsqueeze(1) & masked, 1)
    T = _top_polynomial(power)
    log_e = (v - p) * rate
    u, weight, S = _combine(T, r, log_e + log_s, log_s)

    # in float64: where tau is small, margin + (p - s_y) / k cancels, and z may be larger than tau z
    linear = (k * margin + (p - s_y)) * rate
    z = linear - u[k - 1].log()
    large = (tau * z.clamp(min=0)).to(p.dtype)
    z = z.to(p.dtype)
    trivial = 0 * (v[0].clamp(min=torch.finfo(v.dtype).min) + s_y.to(v.dtype))
    losses = (large + tau * (-z.abs()).exp().log1p()).where(~few, trivial)
    g = (torch.sigmoid(z) / k).where(~few, trivial)
    if out is None or scale is None:
        return losses

    g = g * scale
    _horner(_gradient_coefficients(u, g, k, few), e[:, :n], out)
    if order is None:
        G = _top_gradient(power, T, weight, r, S, log_e, log_s, k)
    else:
        G = _top_gradient_taylor(u, log_e, k, order)
    G = (g * G).where(~few, g)
    # A column of padding, in rows with few classes left: its gradient is 0, and so is the label's yet.
    out.scatter_(1, torch.where(where < n, where, label), G.t())
    out.scatter_(1, label, -g.unsqueeze(1))
    return losses


def _top_size(k: int, others: int) -> int:
    """Return how many of the largest scores are treated one by one, so that the rest amplifies the rounding of
    its gradient polynomial little; see docs/algorithm.md."""
    return min(others, k + min(max(0, k - 5), max(10, k // 2)))


def _largest(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Return the t largest of each row, descending, and their columns.

    The t lanes (columns a multiple of _TREE_WIDTH apart) with the largest maxima hold t largest scores of the
    row: in a long row, finding those first leaves few to sort.
    """
    if x.shape[1] < _TREE_WIDTH**2 or t > _TREE_WIDTH // 4:
        return x.topk(t, dim=1)
    lanes = x.view(x.shape[0], -1, _TREE_WIDTH)
    lane = lanes.amax(1).topk(t, dim=1, sorted=False).indices
    candidates = lanes.gather(2, lane.unsqueeze(1).expand(-1, lanes.shape[1], -1))
    values, at = candidates.flatten(1).topk(t, dim=1)
    return values, at // t * _TREE_WIDTH + lane.gather(1, at % t)


def _rest_polynomial(e: Tensor, k: int, degree: int) -> tuple[Tensor, Tensor]:
    """Return r_j = s^j sigma_j(e), by a product tree, (degree + 1, N), and log s.

    s = 2^-ceil(log2(2 r_1 / k)) or 1 bounds r_j by (k / 2)^j / j!, and is exact.  It comes in at the last
    level where the products are still in range without it, if there is one.
    """
    tree = e.t().unsqueeze(0)  # (degree, columns, N)
    merged = 1
    log_s = None
    while tree.shape[1] > 1:
        if tree.shape[1] <= _TREE_WIDTH:
            # at this and the later levels long runs in memory are along the rows
            tree = tree.contiguous()
        if tree.shape[1] % 2:
            tree = F.pad(tree, (0, 0, 0, 1))
        merged *= 2
        largest = math.comb(merged, min(degree, merged // 2))
        if log_s is None and largest > _COEFFICIENT_LIMIT[e.dtype]:
            tree, log_s = _scaled(tree, k)
        half = tree.shape[1] // 2
        tree = _multiply(tree[:, :half], tree[:, half:], degree)
    if log_s is None:
        # all coefficients of all others are in range
        log_s = e.new_zeros(())
    r = tree.new_zeros((degree + 1, e.shape[0]))
    r[0] = 1
    r[1 : 1 + tree.shape[0]] = tree[:, 0]
    return r, log_s


def _scaled(tree: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return coefficient j times s^j, and log s."""
    log2_s = -(2 * tree[0].sum(0) / k).clamp(min=1).log2().ceil()
    j = torch.arange(1, tree.shape[0] + 1, device=tree.device, dtype=tree.dtype)
    return tree * torch.exp2(j.unsqueeze(1) * log2_s).unsqueeze(1), log2_s * math.log(2)


def _multiply(a: Tensor, b: Tensor, degree: int) -> Tensor:
    """Multiply polynomials without their leading 1: (d, ...) to (min(2 d, degree), ...)."""
    d, columns, n_rows = a.shape
    out_degree = min(2 * d, degree)
    order = (0, 1, 2) if a.stride(2) == 1 else (0, 2, 1)
    out: Tensor = torch.empty_permuted(
        (out_degree, columns, n_rows), order, dtype=a.dtype, device=a.device
    )
    torch.add(a, b, out=out[:d])
    if out_degree > d:
        torch.mul(a[d - 1], b[: out_degree - d], out=out[d:])
    for i, a_i in enumerate(a[: d - 1].unbind(0), 1):
        width = min(d, out_degree - i)
        out[i : i + width].addcmul_(a_i, b[:width])
    return out


def _top_polynomial(power: Tensor) -> Tensor:
    """Return T_j = sigma_j(Top) / (product of Top's j largest), by T_j += exp((v_i - v_j) / (k tau)) T_{j-1}."""
    t, _, n_rows = power.shape
    buffers = power.new_zeros((2, t + 1, n_rows))
    buffers[:, 0] = 1
    now, then = ((T, T[1:], T[:-1]) for T in buffers.unbind(0))
    # T_j is 0 where j is more than the classes included, whatever it is multiplied by.
    for power_i in power.unbind(0):
        torch.addcmul(now[1], power_i, now[2], out=then[1])
        now, then = then, now
    return now[0]


def _combine(T: Tensor, r: Tensor, d: Tensor, log_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return u_j = sigma_{j-1} / sigma_j, j = 1..degree, in pivot units; weight (m, J, N); S (J, N).

    s^J sigma_J = sum_m T_m exp(D_m) r_{J-m}, D_m = d_1 + ... + d_m, is kept as S_J relative to the largest
    exp(D_m), m <= J, whose log is the sum of the positive d_i, i <= J.  weight_m is T_m exp(D_m)
    relative to that: the same at k - 1 and k, since d_k <= 0.
    """
    degree = r.shape[0] - 1
    d = F.pad(d[:degree], (0, 0, 0, max(0, degree - d.shape[0])))
    step = torch.exp(-d.clamp(min=0))
    shrink = torch.exp(F.pad(d.clamp(max=0), (0, 0, 1, 0))).cumprod(0)
    T = F.pad(T[: degree + 1], (0, 0, 0, max(0, degree + 1 - T.shape[0])))
    J = torch.arange(degree + 1, device=r.device)
    below = (J - J.unsqueeze(1)).unsqueeze(-1)  # J - m
    steps = torch.where(below > 0, F.pad(step, (0, 0, 1, 0), value=1.0), 1.0).cumprod(1)
    weight = steps * (T * shrink).unsqueeze(1)
    rest = r[below[..., 0].clamp(min=0)].masked_fill(below < 0, 0)
    S = (weight * rest).sum(0)
    # sigma_J = 0 where fewer than J others are left
    u = (log_s.exp() * (S[:-1] / S[1:]) * step).masked_fill(S[1:] == 0, math.inf)
    return u, weight, S


def _gradient_coefficients(u: Tensor, g: Tensor, k: int, few: Tensor) -> Tensor:
    """Return the coefficients of g (P_k - P_{k-1}) in e.

    They are g (-1)^(m-1) u_{k-1} ... u_{k-m+1} (u_k - u_{k-m}), u_0 = 0.
    """
    u = u[:k].masked_fill(few, 0)
    lower = F.pad(u[: k - 1].flip(0), (0, 0, 0, 1))
    signed = F.pad(-lower[:-1], (0, 0, 1, 0), value=1.0).cumprod(0)
    return g * signed * (u[k - 1] - lower)


def _horner(coefficients: Tensor, e: Tensor, out: Tensor) -> None:
    """Compute out = sum_m c_m e^m, m = 1..k."""
    c = coefficients.unsqueeze(-1)
    total = c[-1]
    for m in range(c.shape[0] - 2, -1, -1):
        total = torch.addcmul(c[m], total, e, out=out)
    torch.mul(total, e, out=out)


def _top_gradient(
    power: Tensor,
    T: Tensor,
    weight: Tensor,
    r: Tensor,
    S: Tensor,
    log_e: Tensor,
    log_s: Tensor,
    k: int,
) -> Tensor:
    """Return P_k(i) - P_{k-1}(i) of every i in Top, from leave-one-out polynomials of Top.

    keep_j = sigma_j(Top without i) / sigma_j(Top) = 1 - P_j, P_j = w_j keep_{j-1}, w_j = e_i T_{j-1} / T_j, upwards
    from keep_0 = 1 while P_j <= 1/2, and downwards from keep_t = 0, keep_{j-1} = (1 - keep_j) / w_j, beyond:
    each is stable where it is used, since P_j grows with j.  Then, of all others,
    A_J = S_J without i = sum_m weight_m keep_m r_{J-m}, 1 - P_J = A_J / S_J, P_J = s e_i A_{J-1} / S_J, of which
    the one that is 1/2 at most is taken.
    """
    t = power.shape[0]
    w = (power * (T[:-1] / T[1:])).unbind(1)
    down = [torch.zeros_like(log_e)]
    for j in range(t - 1, 0, -1):
        down.append((1 - down[-1]) / w[j])
    # r_{J-m} of J = k, k - 1, k - 2, for each m: (m, J, 1, N)
    rest = F.pad(r[: k + 1].flip(0), (0, 0, 0, 2)).unfold(0, 3, 1).transpose(1, 2).unsqueeze(2)
    terms = weight[: k + 1, k].unsqueeze(1).unsqueeze(1) * rest
    keep = not_P = one = torch.ones_like(log_e)
    A = keep * terms[0]
    for m in range(1, k + 1):
        not_P = torch.minimum(not_P, torch.addcmul(one, w[m - 1], keep, value=-1))
        keep = torch.where(not_P >= 0.5, not_P, down[t - m])
        A.addcmul_(keep, terms[m])
    A_k, A_below, A_2 = A.unbind(0)
    e = (log_e.clamp(max=_EXPONENT_CAP[log_e.dtype]) + log_s).exp()
    not_k = A_k / S[k]
    not_below = A_below / S[k - 1]
    P_k = torch.where(not_k <= 0.5, 1 - not_k, e * (A_below / S[k]))
    P_below = torch.where(not_below <= 0.5, 1 - not_below, e * (A_2 / S[k - 1]))
    difference: Tensor = P_k * not_below - P_below * not_k
    return difference


def _top_gradient_taylor(u: Tensor, log_e: Tensor, k: int, order: int) -> Tensor:
    """Return P_k(i) - P_{k-1}(i) of every i in Top, as the paper does it.

    Where e u_k is below a threshold, the recursion P_j = e u_j (1 - P_{j-1}), whose rounding grows as
    (e u_k)^k; else the series of order p that it gives downwards from P_{k+p-1} = 1,
    1 - P_{j-1} = P_j / (e u_j), cut off at about (e u_k)^-p.  The threshold makes the two equal.
    """
    e = log_e.clamp(max=_EXPONENT_CAP[log_e.dtype]).exp()
    P_below = P = torch.zeros_like(e)
    for j in range(k):
        P_below, P = P, e * u[j] * (1 - P)
    Q = torch.zeros_like(e)
    for j in range(k + order - 2, k - 1, -1):
        Q = (1 - Q) / (e * u[j])
    Q_below = (1 - Q) / (e * u[k - 1])
    threshold = torch.finfo(u.dtype).eps ** (-1 / (k + order))
    return torch.where(e * u[k - 1] < threshold, P - P_below, Q_below - Q)

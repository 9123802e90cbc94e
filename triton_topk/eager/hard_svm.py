"""The top-k hinge loss is L = max(0, margin + (s_[k] - s_y) / k), s_[k] the k-th largest other."""

from __future__ import annotations

import torch
from torch import Tensor

from triton_topk.eager.rows import Rows
from triton_topk.losses import HardSVM


def compute(rows: Rows, loss: HardSVM) -> Tensor:
    others = rows.others[:, : rows.n]
    if rows.summary is None:
        top = others.topk(loss.k, dim=1).values
        first, p = top[:, 0], top[:, -1]
    else:
        first, p = rows.summary.v[0], rows.summary.v[-1].to(others.dtype)
    # NaN is first
    bad = 0 * first.clamp(min=torch.finfo(p.dtype).min)
    # In float64, since margin and (p - s_y) / k cancel.  It is -inf where fewer than k others are left.
    violation = (loss.k * (loss.margin + rows.margin) + (p - rows.s_y)) / loss.k
    losses = violation.clamp(min=0) + bad
    if rows.out is not None and rows.scale is not None:
        g = torch.where(losses > 0, 1 / loss.k, 0 * losses) * rows.scale
        ties = (others == p.unsqueeze(1)).to(p.dtype)
        n_ties = ties.sum(1) if rows.summary is None else rows.summary.total.clamp(min=1)
        share = (g / n_ties).to(p.dtype).unsqueeze(1)
        torch.mul(ties, share, out=rows.out)
        rows.out.scatter_(1, rows.label, -g.to(p.dtype).unsqueeze(1))
    return losses

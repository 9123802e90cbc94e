"""A summary has all that the losses of rows need to know of some of their classes but the label's.

Summaries of different classes can be merged to one of all of them, so that ranks which share the classes of a row need
to tell each other no more.  Their numbers are in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_topk import polynomial
from triton_topk.losses import Form


class Summary(NamedTuple):
    """The fields are views of the numbers, (top + degree + 4, N)."""

    v: Tensor  # (top, N), the largest scores, descending; NaN stands for +inf
    r: Tensor  # (degree, N), sigma_1, ... of exp((s_i - v_k) / (k tau)) of all scores that are not of v
    total: (
        Tensor  # (N,), the sum of exp(s_i - v_1) of all scores, or how many are equal to v_k, or 0
    )
    s_y: Tensor  # (N,), the score of the label, if it is among the classes
    rank: Tensor  # (N,), how many of the classes come before it in the order of scores
    place: Tensor  # (N,), 0 if the label is among the classes, 1 if it is behind, -1 if it is before them

    @classmethod
    def of(cls, numbers: Tensor, form: Form) -> Summary:
        v, r, others = numbers.split((form.top, form.degree, 4))
        return cls(v, r, *others.unbind(0))


def numbers(form: Form) -> int:
    """Count the numbers of a row."""
    return form.top + form.degree + 4


def merge(summaries: Tensor, form: Form) -> Tensor:
    """Merge summaries (shards, numbers, N) to one of all classes."""
    out = torch.empty_like(summaries[0])
    merged, parts = Summary.of(out, form), [Summary.of(part, form) for part in summaries]
    v = torch.stack([part.v for part in parts])
    ordered = v.flatten(0, 1).sort(0, descending=True).values
    merged.v.copy_(ordered[: form.top])
    first, pivot = merged.v[0], merged.v[form.k - 1]
    pivots = v[:, form.k - 1]
    if form.degree:
        # e relative to the pivot of a part is this times what it is relative to that of all
        log_scale = (pivots - pivot) * form.rate
        powers = torch.arange(1, form.degree + 1, device=v.device).unsqueeze(1)
        r = torch.stack([part.r for part in parts])
        # a part of fewer than k classes has no pivot, and nothing in r
        r = torch.where(r == 0, 0, r * (log_scale.unsqueeze(1) * powers).exp_())
        evicted = _of_scores(ordered[form.top :], pivot, form)
        merged.r.copy_(polynomial.product(torch.cat((r, evicted)).movedim(0, 1), form.degree))
    total = torch.stack([part.total for part in parts])
    if form.total == "ties":
        # above its own pivot a part has no more than v
        total = torch.where(pivots == pivot, total, (v == pivot).sum(1))
    else:
        total = torch.where(total == 0, 0, total * (v[:, 0] - first).exp_())
    torch.sum(total, 0, out=merged.total)
    place = torch.stack([part.place for part in parts])
    own = place == 0
    s_y = torch.stack([part.s_y for part in parts]).masked_fill_(~own, 0).sum(0)
    # a label that is no class has no score
    merged.s_y.copy_(s_y.masked_fill_(own.sum(0) != 1, math.nan))
    # of equal scores the lower class comes first
    before = (v > merged.s_y) | ((v == merged.s_y) & (place > 0).unsqueeze(1))
    rank = torch.stack([part.rank for part in parts])
    torch.sum(torch.where(own, rank, before.sum(1)), 0, out=merged.rank)
    merged.place.zero_()
    return out


def _of_scores(scores: Tensor, pivot: Tensor, form: Form) -> Tensor:
    """Return the polynomial (1, degree, N) of scores (n, N), none of which is above the pivot; there may be none."""
    e = ((scores - pivot) * form.rate).exp_().masked_fill_(scores == -math.inf, 0)
    width = -(-max(1, e.shape[0]) // polynomial.LANES) * polynomial.LANES
    e = F.pad(e, (0, 0, 0, width - e.shape[0])).t().contiguous()
    r = polynomial.of_weights(e, form.degree)
    return F.pad(r, (0, 0, 0, form.degree - r.shape[0])).unsqueeze(0)

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
    """The fields are views of the numbers, (top + degree + 5, N)."""

    v: Tensor  # (top, N), the largest scores, descending; NaN stands for +inf
    r: Tensor  # (degree, N), sigma_1, ... of exp((s_i - v_k) / (k tau)) of all scores that are not of v
    tied: Tensor  # (N,), 1 if one of those is equal to the last of v, else 0
    total: Tensor  # (N,), as the form says, of exp(s_i - v_1), or of the scores equal to v_k
    s_y: Tensor  # (N,), the score of the label, if it is among the classes
    rank: Tensor  # (N,), how many of the classes come before it in the order of scores
    place: Tensor  # (N,), 0 if the label is among the classes, their number if it is behind, -1 if it is before them

    @classmethod
    def of(cls, numbers: Tensor, form: Form) -> Summary:
        """Return the fields of a summary, or of several, with a dimension for them before the others."""
        v, r, others = numbers.split((form.top, form.degree, 5), dim=-2)
        return cls(v, r, *others.unbind(-2))


def numbers(form: Form) -> int:
    """Count the numbers of a row."""
    return form.top + form.degree + 5


def merge(summaries: Tensor, form: Form) -> Tensor:
    """Merge summaries (shards, numbers, N) to one of all classes."""
    out = torch.zeros_like(summaries[0])
    merged, parts = Summary.of(out, form), Summary.of(summaries, form)
    v = parts.v
    # a row's scores beside each other, which takes a CPU a third of the time
    ordered = v.flatten(0, 1).t().contiguous().sort(descending=True).values.t()
    evicted = ordered[form.top :]
    merged.v.copy_(ordered[: form.top])
    first, pivot, floor = merged.v[0], merged.v[form.k - 1], merged.v[-1]
    pivots = v[:, form.k - 1]
    if form.degree:
        # e relative to the pivot of a part is this times what it is relative to that of all
        log_scale = (pivots - pivot) * form.rate
        powers = torch.arange(1, form.degree + 1, device=v.device).unsqueeze(1)
        # a part of fewer than k classes has no pivot, and nothing in r
        scaled = parts.r * (log_scale.unsqueeze(1) * powers).exp_()
        r = torch.where(parts.r == 0, 0, scaled)
        r = torch.cat((r, _of_scores(evicted, pivot, form)))
        merged.r.copy_(polynomial.product(r.movedim(0, 1), form.degree))
    tied = (evicted == floor).any(0) | ((parts.tied > 0) & (v[:, -1] == floor)).any(0)
    merged.tied.copy_(tied)
    if form.total == "ties":
        # above its own pivot a part has no more than v
        total = torch.where(pivots == pivot, parts.total, (v == pivot).sum(1))
    else:
        total = torch.where(parts.total == 0, 0, parts.total * (v[:, 0] - first).exp_())
    merged.total.copy_(_sum(total))
    own = parts.place == 0
    # a label that is no class has no score
    s_y = torch.where(own, parts.s_y, 0).sum(0).masked_fill_(own.sum(0) != 1, math.nan)
    merged.s_y.copy_(s_y)
    # of equal scores the lower class comes first; v ends with what are no classes, where there are fewer than it holds
    of_lower_class = torch.arange(form.top, device=v.device).unsqueeze(1) < parts.place.unsqueeze(1)
    before = (v > s_y) | ((v == s_y) & of_lower_class)
    merged.rank.copy_(torch.where(own, parts.rank, before.sum(1)).sum(0))
    return out


def _sum(x: Tensor) -> Tensor:
    """Add up (shards, N), in an order that does not depend on N."""
    while x.shape[0] > 1:
        left, right = F.pad(x, (0, 0, 0, x.shape[0] % 2)).chunk(2)
        x = left + right
    return x[0]


def _of_scores(scores: Tensor, pivot: Tensor, form: Form) -> Tensor:
    """Return the polynomial (1, degree, N) of scores (n, N), none of which is above the pivot; there may be none."""
    e = ((scores - pivot) * form.rate).exp_().masked_fill_(scores == -math.inf, 0)
    n = max(1, e.shape[0])
    width = n if n <= polynomial.LANES else -(-n // polynomial.LANES) * polynomial.LANES
    e = F.pad(e, (0, 0, 0, width - e.shape[0])).t().contiguous()
    r = polynomial.of_weights(e, form.degree)
    return F.pad(r, (0, 0, 0, form.degree - r.shape[0])).unsqueeze(0)

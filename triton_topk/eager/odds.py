"""The odds against the label decide the Lq loss, and the smooth top-k SVM loss of k = 1.

With m the largest score of the others, e_i = exp((s_i - m) / tau) and T the sum of the others' e, the odds are exp(z),
z = (m - s_y) / tau + log T.  A loss with dL/ds_y = -g has dL/ds_i = g e_i / T.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from triton_topk.eager.rows import Rows


class Softmax(NamedTuple):
    """The softmax of the others is in float64, since the odds are wrong by what rounds z."""

    largest: Tensor  # (N,), m; -inf where no other class is left
    total: Tensor  # (N,), T
    shares: Tensor  # (N, n), e_i / T but for a factor of the row, in the dtype of the others; not for the label
    sum_of_shares: Tensor  # (N,), that factor, near 1 where the classes are those of the shares


def softmax_of(rows: Rows, tau: float = 1.0) -> Softmax:
    """Return the softmax of the others; overwrite them if tau is not 1, else the label's column."""
    others = rows.others[:, : rows.n]
    largest = others.amax(1)
    # Stands for the label, so that the softmax of a row of masked classes is 0 and not NaN.
    lowest = torch.finfo(others.dtype).min
    others.scatter_(1, rows.label, lowest)
    if tau != 1:
        # the difference comes first, so that a small tau costs no digits
        others.sub_(largest.clamp(min=lowest).unsqueeze(1)).div_(tau)
    shares = others.softmax(1)
    # softmax adds up one by one, which in long rows costs digits; sum does not
    sum_of_shares = shares.sum(1).double()
    # the largest class has the share 1 / T
    return Softmax(largest, sum_of_shares / shares.amax(1), shares, sum_of_shares)


def of_all(part: Softmax, largest: Tensor, total: Tensor, tau: float = 1.0) -> Softmax:
    """Return the softmax of all shards, given their m and T, with the shares of this one."""
    # 0 where no other class is left
    total = total.clamp(min=1)
    # equal infinities are equal
    distance = torch.where(part.largest == largest, 0, part.largest - largest)
    weight = (distance / tau).exp_()
    return part._replace(
        largest=largest,
        total=total,
        sum_of_shares=part.sum_of_shares * total / (part.total * weight),
    )


def log_odds(rows: Rows, softmax: Softmax, margin: Tensor | float, tau: float) -> Tensor:
    """Return z; -inf where no other class is left, or NaN if the label is masked too."""
    return (softmax.largest - rows.s_y + margin) / tau + softmax.total.log()


def write_gradient(rows: Rows, softmax: Softmax, g: Tensor) -> None:
    if rows.out is not None and rows.scale is not None:
        g = g * rows.scale
        share = (g / softmax.sum_of_shares).to(rows.out.dtype)
        torch.mul(softmax.shares, share.unsqueeze(1), out=rows.out)
        rows.out.scatter_(1, rows.label, g.neg_().to(rows.out.dtype).unsqueeze(1))

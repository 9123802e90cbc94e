"""The odds against the label decide the Lq loss, and the smooth top-k SVM loss of k = 1.

With m the largest score of the others and T = sum_{i != y} exp((s_i - m) / tau), the odds are exp(z),
z = (m - s_y) / tau + log T.  A loss with dL/ds_y = -g has the gradient g times a direction: -1 for the label, and for
each of the others its share of T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from triton_topk.eager.rows import Rows


def summary(rows: Rows, tau: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return m - s_y and -log T (N,), in float64, and the direction (N, width); overwrite the others.

    In float64, since the odds are wrong by what rounds z.  Where no other class is left m - s_y is -inf, or NaN if the
    label is masked too.
    """
    others = rows.others
    largest = others.amax(1)
    # Stands for the label, so that the softmax of a row of masked classes is 0 and not NaN.
    lowest = torch.finfo(others.dtype).min
    others.scatter_(1, rows.label, lowest)
    if tau != 1:
        # the difference comes first, so that a small tau costs no digits
        others.sub_(largest.clamp(min=lowest).unsqueeze(1)).div_(tau)
    direction = others.softmax(1)
    # the largest class has the share 1 / T
    minus_log_t = direction.amax(1).double().log_()
    return largest - rows.s_y, minus_log_t, direction.scatter_(1, rows.label, -1)


def write_gradient(rows: Rows, direction: Tensor, g: Tensor) -> None:
    if rows.out is not None and rows.scale is not None:
        g = (g * rows.scale).to(rows.out.dtype)
        torch.mul(direction, g.unsqueeze(1), out=rows.out)

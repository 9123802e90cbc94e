"""The generalised cross-entropy Lq is computed from the log-odds of the label.

With z = log sum_{i != y} exp(s_i) - s_y: p_y = sigmoid(-z), log p_y = -softplus(z),

    L = (1 - p_y^q) / q      dL/ds_i = p_y^q (1 - p_y) exp(s_i) / sum_{j != y} exp(s_j)      dL/ds_y = -p_y^q (1 - p_y)

Nothing is subtracted from 1 that is close to it, so all of these keep their digits at p_y = 0 and 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_topk.eager import odds
from triton_topk.eager.rows import Rows
from triton_topk.losses import Lq

_SMALL = 1e-20


def compute(rows: Rows, loss: Lq) -> Tensor:
    softmax, losses, g = of_odds(rows, loss)
    odds.write_gradient(rows, softmax, g)
    return losses


def of_odds(rows: Rows, loss: Lq) -> tuple[odds.Softmax, Tensor, Tensor]:
    """Return the softmax of the others, the losses and -dL/ds_y (N,)."""
    softmax = odds.softmax_of(rows)
    if rows.summary is not None:
        softmax = odds.of_all(softmax, rows.summary.v[0], rows.summary.total)
    z = odds.log_odds(rows, softmax, 0.0, 1.0)
    # beyond the threshold it is z, to the last digit of float64
    minus_log_p = F.softplus(z, threshold=40)
    losses, p_to_q = lq_of(minus_log_p, loss.q)
    g = p_to_q * z.sigmoid()
    if loss.truncation is not None:
        cut = minus_log_p >= -math.log(loss.truncation)
        losses = losses.masked_fill(cut, loss.truncated_loss)
        g = g.masked_fill(cut, 0)
    return softmax, losses, g


def lq_of(minus_log_p: Tensor, q: float) -> tuple[Tensor, Tensor]:
    """Return (1 - p^q) / q and p^q of -log p in float64, which makes them continuous in q."""
    if q == 0:
        return minus_log_p, torch.ones_like(minus_log_p)
    log_p_to_q = minus_log_p * -q
    losses = log_p_to_q.expm1() / -q
    if q < _SMALL:
        # expm1 may be 0 of what it should return as it is
        losses = torch.where(log_p_to_q > -_SMALL, minus_log_p, losses)
    return losses, log_p_to_q.exp()

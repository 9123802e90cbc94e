"""The mixture, mix * smooth top-k SVM + (1 - mix) * Lq, computes the two losses of one copy of the scores."""

from __future__ import annotations

import math

from torch import Tensor

from triton_topk.eager import lq, smooth_svm
from triton_topk.eager.rows import Rows
from triton_topk.losses import Mixture


def compute(rows: Rows, loss: Mixture) -> Tensor:
    softmax, lq_losses, g = lq.of_odds(rows, loss.lq)
    rows.others.scatter_(1, rows.label, -math.inf)
    svm_rows = rows
    if rows.scale is not None:
        svm_rows = rows._replace(scale=loss.mix * rows.scale)
    losses = loss.mix * smooth_svm.compute(svm_rows, loss.svm) + (1 - loss.mix) * lq_losses
    if rows.out is not None and rows.scale is not None:
        g = (1 - loss.mix) * g * rows.scale
        share = (g / softmax.sum_of_shares).to(rows.out.dtype)
        rows.out.addcmul_(softmax.shares, share.unsqueeze(1))
        rows.out.scatter_add_(1, rows.label, g.neg_().to(rows.out.dtype).unsqueeze(1))
    return losses

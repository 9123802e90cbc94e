"""The mixture, mix * smooth top-k SVM + (1 - mix) * Lq, computes the two losses of one copy of the scores."""

from __future__ import annotations

import math

from torch import Tensor

from triton_topk.eager import lq, smooth_svm
from triton_topk.eager.rows import Rows
from triton_topk.losses import Mixture


def compute(rows: Rows, loss: Mixture) -> Tensor:
    lq_losses, direction, g = lq.row_summary(rows, loss.lq)
    rows.others.scatter_(1, rows.label, -math.inf)
    svm_rows = rows
    if rows.scale is not None:
        svm_rows = rows._replace(scale=loss.mix * rows.scale)
    losses = loss.mix * smooth_svm.compute(svm_rows, loss.svm) + (1 - loss.mix) * lq_losses
    if rows.out is not None and rows.scale is not None:
        g = ((1 - loss.mix) * g * rows.scale).to(rows.out.dtype)
        rows.out.addcmul_(direction[:, : rows.n], g.unsqueeze(1))
    return losses

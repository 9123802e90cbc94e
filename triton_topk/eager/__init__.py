"""The losses and their gradients in plain PyTorch: any device, any k, no wait for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from triton_topk.eager import hard_svm, joint, lq, smooth_svm
from triton_topk.eager.rows import Rows, label_hits, padded, prepare
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM, SmoothSVMLq

# Each fills rows.out with the gradient times rows.scale, and returns the losses (N,).
_COMPUTE: dict[type, Callable[[Rows, Any], Tensor]] = {
    SmoothSVM: smooth_svm.compute,
    HardSVM: hard_svm.compute,
    Lq: lq.compute,
    SmoothSVMLq: joint.compute,
}


# What happens here has no history; not tracking it makes small operations a sixth cheaper.
@torch.inference_mode()
def run(
    scores: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    weight: Tensor | None = None,
    margins: Tensor | None = None,
    normalizer: Tensor | None = None,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    hits: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    """Fill `losses` (N,), `hits` (N, 2) and `gradient` (N, C), each of which may be None.

    The losses are divided by the normalizer; the gradient is that of sum_i losses_i upstream_i.
    """
    n = scores.shape[1]
    double = scores.dtype == torch.float64
    if isinstance(loss, SmoothSVM | SmoothSVMLq):
        double = double or loss.k > smooth_svm.MAX_K_FLOAT32
    dtype = torch.float64 if double else torch.float32
    out = gradient
    if gradient is not None and gradient.dtype != dtype:
        out = torch.empty_like(gradient, dtype=dtype)
    if isinstance(loss, SmoothSVM | SmoothSVMLq):
        others = padded(scores, dtype, smooth_svm.padded_width(n))
    elif out is not None:
        # Fresh memory costs more than filling it, and the gradient is written when the scores have been read.
        others = out.copy_(scores)
    else:
        others = scores.to(dtype, copy=True, memory_format=torch.contiguous_format)
    rows, factor = prepare(
        n,
        others,
        labels,
        ignore_index=loss.ignore_index,
        weight=weight,
        margins=margins,
        normalizer=normalizer,
        upstream=upstream,
        out=out,
    )
    # before the rows are overwritten
    found = None if loss.hits is None else label_hits(rows, loss.hits)
    result = _COMPUTE[type(loss)](rows, loss)
    if gradient is not None and out is not None and out is not gradient:
        gradient.copy_(out)
    if losses is not None:
        losses.copy_(result * factor)
    if hits is not None and found is not None:
        counted = (labels != loss.ignore_index) & ~result.isnan()
        torch.logical_and(found, counted.unsqueeze(1), out=hits)

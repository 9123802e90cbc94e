"""The eager backend computes the losses in plain PyTorch: on any device, for any k, without a wait for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.eager import hard_svm, lq, mixture, smooth_svm
from triton_topk.eager.rows import Rows, label_hits, padded, prepare
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM


class _Formula(NamedTuple):
    """The formula fills rows.out with the gradient times rows.scale, and returns the losses (N,)."""

    compute: Callable[[Rows, Any], Tensor]
    k: Callable[[Any], int] = lambda loss: 1  # of the polynomials of the scores; 1 without any


_FORMULAS: dict[type[Loss], _Formula] = {
    SmoothSVM: _Formula(smooth_svm.compute, attrgetter("k")),
    HardSVM: _Formula(hard_svm.compute),
    Lq: _Formula(lq.compute),
    Mixture: _Formula(mixture.compute, attrgetter("k")),
}

name = "eager"


def obstacle_to_tensor(tensor: Tensor) -> None:
    """Return None: PyTorch works on any tensor."""


def obstacle(batch: Batch, loss: Loss) -> None:
    """Return None: there is a formula for every loss."""


# The work on the rows has no history; not tracking it makes small operations a sixth cheaper.
@torch.inference_mode()
def run(
    batch: Batch,
    loss: Loss,
    *,
    upstream: Tensor | None = None,
    losses: Tensor | None = None,
    hits: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    scores, formula = batch.scores, _FORMULAS[type(loss)]
    k = formula.k(loss)
    double = scores.dtype == torch.float64 or k > smooth_svm.MAX_K_FLOAT32
    dtype = torch.float64 if double else torch.float32
    out = gradient
    if gradient is not None and gradient.dtype != dtype:
        out = torch.empty_like(gradient, dtype=dtype)
    if k > 1:
        others = padded(scores, dtype, smooth_svm.padded_width(scores.shape[1]))
    elif out is not None:
        # Fresh memory costs more than filling it, and the gradient is written when the scores have been read.
        others = out.copy_(scores)
    else:
        others = scores.to(dtype, copy=True, memory_format=torch.contiguous_format)
    rows, factor = prepare(batch, loss.ignore_index, others, upstream, out)
    # before the rows are overwritten
    found = None if loss.hits is None else label_hits(rows, loss.hits)
    result = formula.compute(rows, loss)
    if gradient is not None and out is not None and out is not gradient:
        gradient.copy_(out)
    if losses is not None:
        torch.mul(result, factor, out=losses)
    if hits is not None and found is not None:
        counted = (batch.labels != loss.ignore_index) & ~result.isnan()
        torch.logical_and(found, counted.unsqueeze(1), out=hits)


def scale_(gradient: Tensor, factor: Tensor) -> None:
    gradient.mul_(factor)

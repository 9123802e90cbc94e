"""The eager backend computes the losses in plain PyTorch: on any device, for any k, without a wait for a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triton_topk import polynomial
from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.eager import hard_svm, lq, mixture, smooth_svm
from triton_topk.eager.rows import Rows, padded, prepare, rank_of_label
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM
from triton_topk.summary import Summary


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
in_place = True


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
    dtype = _dtype(batch, loss)
    n, sharded = batch.n_classes, batch.summary is not None
    out = gradient
    if gradient is not None and (gradient.dtype != dtype or sharded):
        out = gradient.new_empty((gradient.shape[0], n), dtype=dtype)
    if formula.k(loss) > 1 or sharded:
        others = padded(scores, dtype, smooth_svm.padded_width(n))
    elif out is not None:
        # Fresh memory costs more than filling it, and the gradient is written when the scores have been read.
        others = out.copy_(scores)
    else:
        others = scores.to(dtype, copy=True, memory_format=torch.contiguous_format)
    summary = None if batch.summary is None else Summary.of(batch.summary, loss.form)
    rows, factor = prepare(batch, loss.ignore_index, others, upstream, out, summary)
    # before the rows are overwritten
    found = None
    if loss.hits is not None:
        rank = rank_of_label(rows) if summary is None else summary.rank
        found = torch.stack((rank < 1, rank < loss.hits), 1)
    result = formula.compute(rows, loss)
    if gradient is not None and out is not None and out is not gradient:
        gradient.copy_(out[:, : scores.shape[1]])
    if losses is not None:
        torch.mul(result, factor, out=losses)
    if hits is not None and found is not None:
        counted = (batch.labels != loss.ignore_index) & ~result.isnan()
        torch.logical_and(found, counted.unsqueeze(1), out=hits)


@torch.inference_mode()
def summarize(batch: Batch, loss: Loss) -> None:
    """Fill the summary of the batch with that of its scores."""
    assert batch.summary is not None
    form, scores = loss.form, batch.scores
    others = padded(scores, _dtype(batch, loss), smooth_svm.padded_width(batch.n_classes))
    rows, _ = prepare(batch, loss.ignore_index, others, None, None, None)
    out = Summary.of(batch.summary.zero_(), form)
    out.s_y.copy_(rows.s_y)
    if loss.hits is not None:
        out.rank.copy_(rank_of_label(rows))
    top, where = smooth_svm.largest(others, min(rows.n, form.top))
    out.v.fill_(-math.inf)[: top.shape[1]] = smooth_svm.as_columns(top)
    first, pivot = out.v[[0, form.k - 1]].clamp(min=torch.finfo(others.dtype).min)
    floor = out.v[-1].to(others.dtype).unsqueeze(1)
    out.tied.copy_((others == floor).sum(1) > (out.v == out.v[-1]).sum(0))
    if form.total == "ties":
        out.total.copy_((others == pivot.unsqueeze(1)).sum(1))
    elif form.total:
        e = (others - first.to(others.dtype).unsqueeze(1)).exp_()
        torch.sum(e, 1, dtype=torch.float64, out=out.total)
    if form.degree:
        e = smooth_svm.weigh(others, where, None, pivot, form.rate)
        r = polynomial.of_weights(e, form.degree)
        out.r[: r.shape[0]] = r


def _dtype(batch: Batch, loss: Loss) -> torch.dtype:
    """Return the dtype of the arithmetic on scores."""
    wide = _FORMULAS[type(loss)].k(loss) > smooth_svm.MAX_K_FLOAT32
    return torch.float64 if wide else accumulation_dtype(batch.scores.dtype)


def scale_(gradient: Tensor, factor: Tensor) -> None:
    gradient.mul_(factor)

"""The losses share labels, masked classes, weights and the scale of the gradient."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.summary import Summary


class Rows(NamedTuple):
    """The rows hold the scores of the classes other than the label, and where their gradient goes."""

    others: Tensor  # (N, width >= n), may be overwritten; -inf: the label, masked, ignored, padding
    n: int  # number of classes
    label: Tensor  # (N, 1)
    s_y: Tensor  # (N,) in float64; NaN if +inf or of no class, 0 in an ignored row
    margin: Tensor | float  # (N,) in float64, beside the loss's margin
    scale: Tensor | float | None  # (N,) or one of all, of the gradient
    out: Tensor | None  # (N, n), the gradient
    summary: Summary | None  # of all classes, where these are but a shard of them


def prepare(
    batch: Batch,
    ignore_index: int,
    others: Tensor,
    upstream: Tensor | None,
    out: Tensor | None,
    summary: Summary | None,
) -> tuple[Rows, Tensor | float]:
    """Return the rows of `others`, at first all scores (N, width >= n), and the factor of each loss (N,), or of all."""
    active, valid, label, factor, margins = batch.read_labels(ignore_index, others.dtype)
    if active is not None:
        # an ignored row is a row of masked classes, whatever it holds
        others.masked_fill_(~active.unsqueeze(1), -math.inf)
    own = others.gather(1, label).squeeze(1) if summary is None else summary.s_y
    s_y = infinite_as_nan(own.double())
    if active is not None and valid is not None:
        s_y = s_y.masked_fill(~valid, math.nan).masked_fill(~active, 0)
    others.scatter_(1, label, -math.inf)
    margin = 0.0 if margins is None else margins.double()

    scale: Tensor | float | None = None
    if out is not None:
        scale = factor
        if upstream is not None:
            scale = scale * upstream
        if active is not None:
            scale = torch.where(active, scale, 0)
    return Rows(others, batch.n_classes, label, s_y, margin, scale, out, summary), factor


def infinite_as_nan(scores: Tensor) -> Tensor:
    """Return NaN for +inf, which spoils its row as NaN does, and all other scores as they are."""
    return scores.nan_to_num(nan=math.nan, posinf=math.nan, neginf=-math.inf)


def rank_of_label(rows: Rows) -> Tensor:
    """Count the classes before the label in the order of scores; of equal ones the lower class comes first."""
    s_y = rows.s_y.to(rows.others.dtype).unsqueeze(1)
    column = torch.arange(rows.others.shape[1], device=s_y.device)
    before = (rows.others > s_y) | ((rows.others == s_y) & (column < rows.label))
    return before.sum(1)


def padded(scores: Tensor, dtype: torch.dtype, width: int) -> Tensor:
    """Copy the scores and add masked classes."""
    n_rows, n = scores.shape
    out = scores.new_empty((n_rows, width), dtype=dtype)
    out[:, :n] = scores
    out[:, n:] = -math.inf
    return out

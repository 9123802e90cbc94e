"""What all losses share in plain PyTorch: labels, masked classes, weights, the scale of the gradient."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from triton_topk.labels import read


class Rows(NamedTuple):
    """The scores of the classes other than the label, and where their gradient goes."""

    others: Tensor  # (N, width >= n), may be overwritten; -inf: the label, masked, ignored, padding
    n: int  # number of classes
    label: Tensor  # (N, 1)
    s_y: Tensor  # (N,); NaN if +inf or of no class, 0 in an ignored row
    margin: Tensor | float  # (N,) in float64, beside the loss's own
    scale: Tensor | None  # (N,), of the gradient
    out: Tensor | None  # (N, n), the gradient


def prepare(
    n: int,
    others: Tensor,
    labels: Tensor,
    *,
    ignore_index: int,
    weight: Tensor | None,
    margins: Tensor | None,
    normalizer: Tensor | None,
    upstream: Tensor | None,
    out: Tensor | None,
) -> tuple[Rows, Tensor]:
    """The rows of `others`, at first all scores (N, width >= n), and the factor of each loss (N,)."""
    active, known, masked, label, factor, own_margin = read(
        labels,
        n,
        others.dtype,
        ignore_index=ignore_index,
        weight=weight,
        margins=margins,
        normalizer=normalizer,
        # those on a GPU have not been, and looking at them would wait for it
        checked=labels.device.type == "cpu",
    )
    if masked:
        # an ignored row is a row of masked classes, whatever it holds
        others.masked_fill_(~active.unsqueeze(1), -math.inf)
    s_y = others.gather(1, label).squeeze(1)
    s_y = s_y.masked_fill(s_y == math.inf, math.nan)
    if masked:
        s_y = s_y.masked_fill(~known, math.nan).masked_fill(~active, 0)
    others.scatter_(1, label, -math.inf)
    margin = 0.0 if own_margin is None else own_margin.double()

    scale = None
    if out is not None:
        scale = factor
        if upstream is not None:
            scale = scale * upstream
        if masked:
            scale = torch.where(active, scale, 0)
    return Rows(others, n, label, s_y, margin, scale, out), factor


def label_hits(rows: Rows, k: int) -> Tensor:
    """Is the label among the largest, and among the k largest (N, 2)?  Of equal scores the lower class comes first."""
    s_y = rows.s_y.unsqueeze(1)
    column = torch.arange(rows.others.shape[1], device=s_y.device)
    before = (rows.others > s_y) | ((rows.others == s_y) & (column < rows.label))
    rank = before.sum(1)
    return torch.stack((rank < 1, rank < k), 1)


def padded(scores: Tensor, dtype: torch.dtype, width: int) -> Tensor:
    """A copy of the scores with masked classes added."""
    n_rows, n = scores.shape
    out = scores.new_empty((n_rows, width), dtype=dtype)
    out[:, :n] = scores
    out[:, n:] = -math.inf
    return out

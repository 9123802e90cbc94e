"""What the labels of rows decide: which rows count, their classes, the factors of their losses, their margins."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_LARGEST = 2**63 - 1


def class_indices(labels: Tensor, ignore_index: int) -> Tensor:
    """The labels as int64, which can be compared with every number of classes and every ignore_index.

    Of uint64 there are labels that int64 does not hold: they become a number that is no class and not ignored.
    """
    if labels.dtype == torch.int64:
        return labels
    indices = labels.long()
    if labels.dtype == torch.uint64:
        indices = indices.masked_fill(indices < 0, _LARGEST - (ignore_index == _LARGEST))
    return indices


class Labelled(NamedTuple):
    """Rows (..., N)."""

    active: Tensor  # not ignored
    known: Tensor  # active and of a class
    masked: bool  # some row may not be known
    label: Tensor  # (..., N, 1), the class, or 0
    factor: Tensor  # of the loss; 0 if ignored
    margin: Tensor | None  # beside the loss's own; 0 if ignored


def read(
    labels: Tensor,
    n: int,
    dtype: torch.dtype,
    *,
    ignore_index: int,
    weight: Tensor | None,
    margins: Tensor | None,
    normalizer: Tensor | None,
    checked: bool = False,
) -> Labelled:
    """Of labels (..., N) for n classes, with weight (..., C), margins (..., N, C) and a normalizer () or (..., 1).

    Checked labels are of a class or ignored, and may be looked at.
    """
    active = labels != ignore_index
    known, label = active, labels
    # most batches need no masks
    masked = not (checked and active.all())
    if masked:
        known = active & (labels >= 0) & (labels < n)
        label = labels.where(known, 0)
    factor = active.to(dtype) if weight is None else counted_weights(active, label, weight, dtype)
    if normalizer is not None:
        factor = factor / normalizer
    label = label.unsqueeze(-1)
    margin = None
    if margins is not None:
        margin = margins.gather(-1, label).squeeze(-1).masked_fill(~active, 0)
    return Labelled(active, known, masked, label, factor, margin)


def counted_weights(active: Tensor, label: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight of each label (..., N) out of (..., C); 0 if ignored."""
    return torch.where(active, weight.to(dtype).gather(-1, label), 0)


def sum_of_weights(
    labels: Tensor, weight: Tensor | None, dtype: torch.dtype, ignore_index: int
) -> Tensor:
    """Of the labels (N,) that count: the divisor of a mean."""
    counted = labels != ignore_index
    if weight is None:
        return counted.sum(dtype=dtype)
    label = labels.clamp(0, weight.shape[0] - 1)
    return counted_weights(counted, label, weight, dtype).sum()

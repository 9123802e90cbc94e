"""Batches of batches, for torch.func.vmap: the rows of all of them are the rows of one.

What differs between the batches beside the rows, their weights and normalizers, becomes a factor of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from triton_topk.labels import read
from triton_topk.tensors import accumulation_dtype


class Rows(NamedTuple):
    tensors: tuple[
        Tensor, Tensor, None, Tensor | None, None
    ]  # of B N rows: scores, labels, margins
    factor: Tensor  # (B, N), of the losses


def first(info: Any, in_dims: tuple[Any, ...], tensors: Sequence[Tensor | None]) -> list[Any]:
    """With the batches first, also where all share a tensor."""

    def batches_first(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None:
            return None
        if dim is None:
            return tensor.expand(info.batch_size, *tensor.shape)
        return tensor.movedim(dim, 0)

    return [batches_first(t, dim) for t, dim in zip(tensors, in_dims, strict=False)]


def rows(
    ignore_index: int,
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    margins: Tensor | None,
    normalizer: Tensor | None,
) -> Rows:
    """Of tensors with the batches first."""
    n = scores.shape[-1]
    labelled = read(
        labels,
        n,
        accumulation_dtype(scores.dtype),
        ignore_index=ignore_index,
        weight=weight,
        margins=margins,
        normalizer=None if normalizer is None else normalizer.unsqueeze(1),
    )
    margin = labelled.margin
    if margin is not None:
        margin = margin.reshape(-1, 1).expand(-1, n)
    return Rows((scores.reshape(-1, n), labels.reshape(-1), None, margin, None), labelled.factor)

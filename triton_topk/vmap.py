"""For torch.func.vmap the rows of all batches of a batch of batches are the rows of one.

The weights and normalizers, which differ between the batches, become a factor of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from triton_topk.batch import Batch, accumulation_dtype


def batches_first(info: Any, in_dims: Sequence[Any], tensors: Sequence[Tensor | None]) -> list[Any]:
    """Return the tensors with the dimension of the batches first, also where all batches share one."""

    def first(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None:
            return None
        if dim is None:
            return tensor.expand(info.batch_size, *tensor.shape)
        return tensor.movedim(dim, 0)

    return [first(t, dim) for t, dim in zip(tensors, in_dims, strict=True)]


def merge(batches: Batch, ignore_index: int) -> tuple[Batch, Tensor]:
    """Return one batch of B N rows of B batches of N, and the factor (B, N) of its losses."""
    scores, labels, *_, normalizer, summary = batches.tensors
    if normalizer is not None:
        batches = batches._replace(normalizer=normalizer.unsqueeze(1))
    labelled = batches.read_labels(ignore_index, accumulation_dtype(scores.dtype))
    margins, factor = labelled.margin, labelled.factor
    assert isinstance(factor, Tensor)
    if margins is not None:
        margins = margins.reshape(-1, 1).expand(-1, batches.n_classes)
    if summary is not None:
        summary = summary.movedim(1, 0).flatten(1)
    rows = scores.reshape(-1, scores.shape[-1])
    return Batch(rows, labels.reshape(-1), margins=margins, summary=summary), factor

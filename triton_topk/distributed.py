"""Scores that are a DTensor stay where they are: each rank computes the losses of its rows and classes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from triton_topk.batch import (
    Tensors,
    accumulation_dtype,
    class_dim,
    class_indices,
    look,
    split_weight,
    sum_of_weights,
)
from triton_topk.ops import is_plain
from triton_topk.shard import ClassShard

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor, Placement


def is_distributed(tensor: object) -> TypeGuard[DTensor]:
    if type(tensor) is Tensor:
        return False
    # who has a DTensor has imported this
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def whole(tensor: Any) -> Any:
    """Return all of a DTensor on every rank, and anything else as it is."""
    return tensor.full_tensor() if is_distributed(tensor) else tensor


def compute_all(
    compute_part: Callable[[Tensors, ClassShard | None], Any],
    given: Tensors,
    reduction: str,
    ignore_index: int,
) -> Any:
    """Compute the losses of this rank's tensors, and return those of all ranks, with the hits, as DTensors."""
    scores, labels, weight, margin, normalizer = given
    assert is_distributed(scores)
    layout = _Layout(scores)
    n_classes = scores.shape[layout.class_dim]
    if is_plain((labels,)):
        # a rank that has no wrong label raises the error too, so that it does not wait for the others
        look(class_indices(labels, ignore_index), n_classes, ignore_index)
    class_weight, sample_weight = split_weight(weight, scores, n_classes)
    class_weight = layout.local(class_weight)
    sample_weight = layout.local(sample_weight, layout.of_samples)
    if isinstance(margin, Tensor):
        margin = layout.local(margin, layout.of_samples if margin.dim() > 1 else None)
    local_labels = layout.local(labels, layout.of_labels)
    normalizer = layout.local(normalizer)
    if reduction == "mean" and normalizer is None:
        of_rows = class_indices(local_labels, ignore_index).reshape(-1)
        factors = None if sample_weight is None else sample_weight.reshape(-1)
        dtype = accumulation_dtype(scores.dtype)
        total = sum_of_weights(of_rows, class_weight, factors, dtype, ignore_index)
        normalizer = layout.sum(total).to_local()
    weights = (class_weight, sample_weight)
    out = compute_part((layout.scores, local_labels, weights, margin, normalizer), layout.shard)
    loss, hits = out if isinstance(out, tuple) else (out, None)
    loss = layout.sum(loss) if reduction != "none" else layout.whole(loss, labels)
    return loss if hits is None else (loss, type(hits)(*[layout.whole(x, labels) for x in hits]))


class _Layout:
    """The rows and classes of scores are laid out over a mesh of ranks, by a placement for each of its dimensions."""

    def __init__(self, scores: DTensor) -> None:
        from torch.distributed.tensor import Replicate, Shard

        self.mesh, self.class_dim = scores.device_mesh, class_dim(scores)
        self.everywhere: list[Placement] = [Replicate()] * self.mesh.ndim
        # a sum that is yet to be added up is
        placements = [Replicate() if p.is_partial() else p for p in scores.placements]
        over_classes = [i for i, p in enumerate(placements) if p.is_shard(self.class_dim)]
        if len(over_classes) > 1 or any(p.is_shard() and type(p) is not Shard for p in placements):
            raise ValueError(
                "scores must be sharded over their classes by one dimension of the mesh, and by "
                f"placements Shard, Replicate and Partial, got {scores.placements}"
            )
        self.scores: Tensor = scores.redistribute(placements=placements).to_local()
        # of what each sample has one of, in the shape of the scores with 1 in place of C, and in that of the labels
        self.of_samples = [Replicate() if p.is_shard(self.class_dim) else p for p in placements]
        self.of_labels = [
            Shard(p.dim - 1) if isinstance(p, Shard) and p.dim > self.class_dim else p
            for p in self.of_samples
        ]
        self.shard: ClassShard | None = None
        for i in over_classes:
            self.shard = ClassShard.even(scores.shape[self.class_dim], self.mesh.get_group(i))

    def local(self, tensor: Any, placements: Sequence[Placement] | None = None) -> Any:
        """Return this rank's part of a tensor, all of it by default; one that is no DTensor is the same everywhere."""
        from torch.distributed.tensor import DTensor

        if not isinstance(tensor, DTensor):
            if not isinstance(tensor, Tensor) or placements is None:
                return tensor
            tensor = DTensor.from_local(tensor, self.mesh, self.everywhere, run_check=False)
        return tensor.redistribute(placements=placements or self.everywhere).to_local()

    def sum(self, part: Tensor) -> DTensor:
        """Return the sum over all rows of what is a sum over this rank's."""
        from torch.distributed.tensor import DTensor, Partial

        partial = [Partial() if p.is_shard() else p for p in self.of_labels]
        out: DTensor = DTensor.from_local(part, self.mesh, partial, run_check=False)
        return out.redistribute(placements=self.everywhere)

    def whole(self, part: Tensor, labels: Tensor) -> DTensor:
        """Return what each label has one of."""
        from torch.distributed.tensor import DTensor

        stride = torch.empty(labels.shape, device="meta").stride()
        out: DTensor = DTensor.from_local(
            part, self.mesh, self.of_labels, run_check=False, shape=labels.shape, stride=stride
        )
        return out

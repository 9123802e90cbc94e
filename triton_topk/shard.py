"""The classes may be sharded over the ranks of a process group, which tell each other a summary of each row."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from triton_topk import arguments, ops, polynomial
from triton_topk.batch import Batch, accumulation_dtype, weights_of
from triton_topk.losses import Loss
from triton_topk.summary import numbers

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# PyTorch 2.13 has another name for it.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

# Labels of a shard that are none of its classes.  The class behind its own stands for those of other shards.
_IGNORED, _NO_CLASS = -1, -2


@dataclass(frozen=True)
class ClassShard:
    """The scores of this rank are those of the classes start, ..., start + scores.shape[1] - 1 of total.

    Args:
        group: the process group whose ranks have the other classes; None: the default group.
        start: the first class of this rank's scores.
        total: the number of classes of all ranks.

    Each loss takes `shard=ClassShard(...)`.  The labels, the weight and the margins are then those of all classes, and
    the same on every rank.  So is the loss, to the bit; its gradient is that of this rank's scores.  A call gathers
    2 k + 5 numbers of float64 for each row, for k <= 5, from every rank; a backward needs no communication.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or value.

    Example:
        >>> shard = triton_topk.ClassShard.even(1000)
        >>> scores = features @ weight[shard.start : shard.start + len(weight)].T
        >>> triton_topk.smooth_svm(scores, labels, k=5, shard=shard)
    """

    group: ProcessGroup | None = None
    start: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        for name in ("start", "total"):
            object.__setattr__(self, name, arguments.integer(name, getattr(self, name)))
        if not 0 <= self.start <= self.total:
            raise ValueError(
                f"start must satisfy 0 <= start <= total={self.total}, got {self.start}"
            )

    @classmethod
    def even(cls, total: int, group: ProcessGroup | None = None) -> ClassShard:
        """Return this rank's shard where each has ceil(total / ranks) classes, the last ones fewer or none.

        Those are the shards of torch.chunk, and of a DTensor.
        """
        share = -(-arguments.integer("total", total) // dist.get_world_size(group))
        return cls(group, min(dist.get_rank(group) * share, total), total)

    def check(self, size: int) -> int:
        """Check the number of classes of this rank; return that of all."""
        if self.start + size > self.total:
            raise ValueError(
                f"shard must have the classes from start={self.start} on of total={self.total}, "
                f"got scores of {size} classes"
            )
        return self.total


def exchange(shard: ClassShard, batch: Batch, loss: Loss, plain: bool) -> tuple[Batch, Loss]:
    """Return the batch of this rank's classes with the summary of all of them, and the loss of its labels."""
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(f"{loss.name} of a shard has no transforms of torch.func")
    if not polynomial.in_range(shard.total, loss.form.degree):
        raise ValueError(
            f"k must be smaller with a shard, since float64 does not hold the polynomials of "
            f"C={shard.total} classes, got k={loss.form.k}"
        )
    batch, loss, place = _localized(shard, batch, loss)
    with torch.no_grad():
        compiled = is_compiling()
        summarize = (
            partial(ops.call_operator, "_summary") if compiled else ops.way_to("_summary", plain)
        )
        summary = summarize(loss, batch._replace(scores=batch.scores.detach()))
        summary[-1] = place
        n_ranks = dist.get_world_size(shard.group)
        gathered = summary.new_empty((n_ranks * len(summary), len(place)))
        _all_gather(gathered, summary, group=shard.group)
        merged = ops.merge(gathered.unflatten(0, (n_ranks, -1)), loss.form)
    return batch._replace(summary=merged), loss


def _localized(shard: ClassShard, batch: Batch, loss: Loss) -> tuple[Batch, Loss, Tensor]:
    """Return the batch with the labels of this rank's classes, the loss of those, and their places (see Summary)."""
    scores, labels = batch.scores, batch.labels
    n = scores.shape[1]
    behind, before = labels >= shard.start + n, labels < shard.start
    place = behind.double() - before.double()
    if n == 0:
        scores, n = F.pad(scores, (0, 1), value=-math.inf), 1
    local = torch.where(place == 0, labels - shard.start, n)
    label = labels
    if not batch.complete:
        active = labels != loss.ignore_index
        is_class = (labels >= 0) & (labels < shard.total)
        local = local.masked_fill(~is_class, _NO_CLASS).masked_fill(~active, _IGNORED)
        label = labels.where(is_class, 0)
    sample_weight, margins = batch.sample_weight, batch.margins
    if batch.weight is not None:
        dtype = accumulation_dtype(scores.dtype)
        sample_weight = weights_of(label, batch.weight, sample_weight, dtype, None)
    if margins is not None:
        margins = margins.gather(1, label.unsqueeze(1)).expand(-1, n + 1)
    # a place for the summary
    summary = scores.new_empty((numbers(loss.form), len(labels)), dtype=torch.float64)
    batch = batch._replace(
        scores=scores,
        labels=local,
        weight=None,
        sample_weight=sample_weight,
        margins=margins,
        summary=summary,
    )
    return batch, replace(loss, ignore_index=_IGNORED), place

"""A shard is the classes of one rank, where the classes are shared by the ranks of a process group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.compiler import is_compiling

from triton_topk import arguments

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class ClassShard:
    """The scores of this rank are those of the classes start, ..., start + scores.shape[1] - 1 of total.

    Every loss takes a shard.  Its labels, weight and margins are then those of all classes, and the same on every rank
    of the group; and so is the loss, to the bit.  The gradient is that of this rank's scores.  The forward gathers a
    summary of each row from every rank, 2 k + 5 numbers of float64 for k <= 5; the backward needs no communication.
    The shards may be uneven, and a rank may have fewer classes than k, or none.

    Args:
        group: the process group whose ranks have the classes; None: the default group.
        start: the first class of this rank's scores.
        total: the number of classes of all ranks.
        size: the number of classes of this rank, which scores are checked for; None: any.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or value.

    Example, in each process that `torchrun` starts:

    .. code-block:: python

        torch.distributed.init_process_group()
        shard = triton_topk.ClassShard.even(1000)
        weight = torch.randn(shard.size, 64, requires_grad=True)
        loss = triton_topk.smooth_svm(features @ weight.T, labels, k=5, shard=shard)
    """

    group: ProcessGroup | None = None
    start: int = field(kw_only=True)
    total: int = field(kw_only=True)
    size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_group(self.group)
        for name in ("start", "total", "size"):
            value = getattr(self, name)
            if name != "size" or value is not None:
                object.__setattr__(self, name, arguments.integer(name, value))
        if not 0 <= self.start <= self.total or self.total == 0:
            raise ValueError(
                f"start must be in [0, total] and total > 0, got start={self.start}, total={self.total}"
            )
        if self.size is not None and not 0 <= self.size <= self.total - self.start:
            raise ValueError(
                f"size must be in [0, total - start], got size={self.size}, start={self.start}, total={self.total}"
            )

    def __deepcopy__(self, _: Any) -> ClassShard:
        """Return the shard itself: nothing of it changes, and its group is that of the copy, too."""
        return self

    @classmethod
    def even(cls, total: int, group: ProcessGroup | None = None) -> ClassShard:
        """Return this rank's shard where each has ceil(total / ranks) classes, the last ones fewer or none.

        Those are the shards of `torch.chunk`, and of a DTensor.
        """
        _check_group(group)
        share = -(-arguments.integer("total", total) // dist.get_world_size(group))
        start = min(dist.get_rank(group) * share, total)
        return cls(group, start=start, total=total, size=min(share, total - start))


def _check_group(group: ProcessGroup | None) -> None:
    # torch.compile has an object of its own for a group
    if not is_compiling() and not isinstance(group, dist.ProcessGroup | None):
        raise TypeError(f"group must be a ProcessGroup or None, got {arguments.shown(group)}")


def check_shard(shard: ClassShard | None) -> None:
    if not isinstance(shard, ClassShard | None):
        raise TypeError(f"shard must be a ClassShard or None, got {arguments.shown(shard)}")


def classes_of(shard: ClassShard | None, size: int) -> int:
    """Check the number of classes that scores have; return that of the labels."""
    if shard is None:
        return size
    check_shard(shard)
    if shard.size is not None and size != shard.size:
        raise ValueError(f"scores must have the {shard.size} classes of the shard, got {size}")
    if shard.start + size > shard.total:
        raise ValueError(
            f"shard must have the classes of the scores, got {size} of them from "
            f"start={shard.start} on for total={shard.total}"
        )
    return shard.total

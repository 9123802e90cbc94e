"""Ranks that share the classes tell each other a summary of each row."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.compiler import is_compiling

from triton_topk import arguments, ops, polynomial
from triton_topk.batch import Batch, accumulation_dtype, weights_of
from triton_topk.losses import Loss
from triton_topk.shard import ClassShard
from triton_topk.summary import numbers

# Labels of a shard that are none of its classes.  The class behind its own stands for those of other shards.
_IGNORED, _NO_CLASS = -1, -2


def exchange(
    shard: ClassShard,
    size: int,
    batch: Batch,
    loss: Loss,
    summarize: Callable[[Loss, Batch], Tensor],
) -> tuple[Batch, Loss]:
    """Return the batch of this rank's classes with the summary of all of them, and the loss of its labels.

    The scores are of as many classes as the size says, or of one that is masked if it is 0.
    """
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(f"{loss.name} with a shard has no transforms of torch.func")
    # numbers, which for dynamic shapes torch.compile takes for symbols
    if not polynomial.in_range(operator.index(shard.total), operator.index(loss.form.degree)):
        raise ValueError(
            "k must be smaller with a shard, since float64 does not hold the polynomials of "
            f"C={shard.total} classes, got k={loss.form.k}"
        )
    labels = batch.labels
    batch, local, place = localized(shard, size, batch, loss)
    if not is_compiling() and _is_debugging():
        _compare(shard, labels, size, batch, loss)
    with torch.no_grad():
        summary = summarize(local, batch._replace(scores=batch.scores.detach()))
        # the last field; a copy to a view of a view would have torch.compile fix the number of rows
        summary[-1] = place
        merged = ops.merge(_gather(summary, shard), loss.form)
    return batch._replace(summary=merged), local


def _gather(summary: Tensor, shard: ClassShard) -> Tensor:
    """Return the summaries (ranks, numbers, N) of all ranks."""
    n_ranks = dist.get_world_size(shard.group)
    out: Tensor = summary.new_empty((n_ranks * summary.shape[0], summary.shape[1]))
    # PyTorch 2.13 has another name for it
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, summary, group=shard.group)
    return out.view(n_ranks, *summary.shape)


def localized(shard: ClassShard, size: int, batch: Batch, loss: Loss) -> tuple[Batch, Loss, Tensor]:
    """Return the batch with the labels of this rank's classes, the loss of those, and their places (see Summary)."""
    batch = batch.counted()
    scores, labels, n = batch.scores, batch.labels, batch.scores.shape[1]
    behind, before = labels >= shard.start + size, labels < shard.start
    # behind a shard without classes is a label before it, too
    place = behind.double() * (size or -1) - before.double()
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
    summary = scores.new_empty((numbers(loss.form), labels.shape[0]), dtype=torch.float64)
    batch = batch._replace(
        labels=local,
        weight=None,
        sample_weight=sample_weight,
        margins=margins,
        summary=summary,
    )
    return batch, replace(loss, ignore_index=_IGNORED), place


def of_every_rank(x: Tensor, shard: ClassShard) -> Tensor:
    """Return what every rank has and computes scores of its classes from; its gradient is the sum of all ranks'."""
    copy: Tensor = _OfEveryRank.apply(x, shard)  # type: ignore[no-untyped-call]
    return copy


class _OfEveryRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: ClassShard) -> Tensor:
        ctx.group = shard.group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # a copy, since others may hold on to what is given
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


def _is_debugging() -> bool:
    return bool(dist.get_debug_level() == dist.DebugLevel.DETAIL)  # type: ignore[attr-defined]


def _compare(shard: ClassShard, labels: Tensor, size: int, batch: Batch, loss: Loss) -> None:
    """Raise an error that says which argument is not the same on every rank, or which classes are not of one shard."""
    given: dict[str, Any] = {"loss": loss.name, "total": shard.total}
    given |= zip(loss.parameters(), loss.values, strict=True)
    # ranks may compute their parts with different backends
    del given["backend"]
    *_, normalizer, _ = batch.tensors
    rows = {
        "labels": labels,
        "weight": batch.sample_weight,
        "margin": None if batch.margins is None else batch.margins[:, 0],
        "normalizer": normalizer,
    }
    # as text, in which NaN is equal to NaN
    given |= {name: repr(given.get(name) if x is None else x.tolist()) for name, x in rows.items()}
    start = shard.start
    everyone: list[Any] = [None] * dist.get_world_size(shard.group)
    dist.all_gather_object(everyone, (given, (start, start + size)), group=shard.group)
    first = everyone[0][0]
    for rank, (others, _) in enumerate(everyone):
        for name, value in others.items():
            if value != first[name]:
                raise ValueError(
                    f"{name} must be the same on every rank of a shard's group, got "
                    f"{arguments.shown(first[name])} on rank 0 and {arguments.shown(value)} on rank {rank}"
                )
    ranges = sorted(classes for _, classes in everyone)
    if [0, *[stop for _, stop in ranges]] != [*[start for start, _ in ranges], shard.total]:
        raise ValueError(
            f"the shards of a group must have each of total={shard.total} classes once, got "
            f"start and stop of {ranges}"
        )

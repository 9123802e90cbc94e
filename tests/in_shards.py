"""Shards of the classes in one process: backends with options of their own, on outputs that hold NaN before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from triton_topk.batch import Batch, accumulation_dtype, with_masked_class
from triton_topk.exchange import localized
from triton_topk.losses import Loss
from triton_topk.shard import ClassShard
from triton_topk.summary import Summary, merge


def localize(batch: Batch, loss: Loss, widths: Sequence[int]) -> list[tuple[Batch, Loss, Tensor]]:
    """The batch, the loss and the places of the labels of each shard, so many classes wide."""
    total = sum(widths)
    assert total == batch.scores.shape[1]
    shards = []
    for width, stop in zip(widths, accumulate(widths), strict=True):
        scores = batch.scores[:, stop - width : stop].contiguous()
        part = batch._replace(scores=scores if width else with_masked_class(scores))
        shards.append(localized(ClassShard(start=stop - width, total=total), width, part, loss))
    return shards


def summarize(backend: Any, batch: Batch, loss: Loss, place: Tensor, **options: Any) -> Tensor:
    """The summary of a shard, in memory that holds NaN before."""
    assert batch.summary is not None
    out = torch.full_like(batch.summary, math.nan)
    backend.summarize(batch._replace(summary=out), loss, **options)
    Summary.of(out, loss.form).place.copy_(place)
    return out


def run(
    backends: Sequence[Any],
    batch: Batch,
    loss: Loss,
    widths: Sequence[int],
    *,
    losses: Tensor | None = None,
    hits: Tensor | None = None,
    gradient: Tensor | None = None,
    upstream: Tensor | None = None,
    options: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Fill the outputs as a backend's `run` does, each shard by its own backend with its own options.

    The losses and the hits of all shards must be the same to the bit.
    """
    shards = localize(batch, loss, widths)
    options = options or [{} for _ in widths]
    summaries = [
        summarize(backend, *shard, **given)
        for backend, shard, given in zip(backends, shards, options, strict=True)
    ]
    merged = merge(torch.stack(summaries), loss.form)
    gradients = []
    found: list[tuple[Tensor, Tensor | None]] = []
    for backend, (local, of_local, _), given in zip(backends, shards, options, strict=True):
        scores = local.scores
        own = scores.new_full((len(scores),), math.nan, dtype=accumulation_dtype(scores.dtype))
        own_hits = None if hits is None else torch.zeros_like(hits)
        own_gradient = None if gradient is None else torch.full_like(scores, math.nan)
        backend.run(
            local._replace(summary=merged),
            of_local,
            losses=None if losses is None else own,
            hits=own_hits,
            gradient=own_gradient,
            upstream=upstream,
            **given,
        )
        found.append((own, own_hits))
        gradients.append(own_gradient)
    first, first_hits = found[0]
    if losses is not None:
        assert all(torch.equal(own.view(torch.uint8), first.view(torch.uint8)) for own, _ in found)
        losses.copy_(first)
    if hits is not None:
        assert first_hits is not None
        assert all(torch.equal(own, first_hits) for _, own in found)
        hits.copy_(first_hits)
    if gradient is not None:
        # an empty shard has one masked class
        gradient.copy_(torch.cat([g[:, :w] for g, w in zip(gradients, widths, strict=True)], 1))

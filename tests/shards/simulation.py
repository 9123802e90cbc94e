"""The ranks of a shard's group, one after the other in a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from triton_topk import ops
from triton_topk.batch import Batch, with_masked_class
from triton_topk.exchange import localized
from triton_topk.losses import Loss
from triton_topk.shard import ClassShard
from triton_topk.summary import Summary

Results = tuple[Tensor, Tensor | None, Tensor]


def each_rank(
    loss: Loss, batch: Batch, starts: Sequence[int], backends: Sequence[str | None]
) -> list[Results]:
    """The losses, hits and gradient of each rank, whose classes begin where it says, with its backend."""
    total = batch.scores.shape[1]
    ranks = []
    for start, stop, backend in zip(starts, [*starts[1:], total], backends, strict=True):
        part = batch._replace(scores=batch.scores[:, start:stop])
        if start == stop:
            part = part._replace(scores=with_masked_class(part.scores))
        shard = ClassShard(start=start, total=total)
        ranks.append(localized(shard, stop - start, part, replace(loss, backend=backend)))
    summaries = []
    for part, local, place in ranks:
        summary = ops.way_to("_summary", True)(local, part)
        Summary.of(summary, loss.form).place.copy_(place)
        summaries.append(summary)
    merged = ops.merge(torch.stack(summaries), loss.form)
    return [
        ops.way_to("_with_gradient", True)(local, part._replace(summary=merged))
        for part, local, _ in ranks
    ]


def whole(loss: Loss, batch: Batch, starts: Sequence[int], backend: str | None) -> Results:
    """The losses and hits, which are the same on every rank, and the gradient of all classes."""
    ranks = each_rank(loss, batch, starts, [backend] * len(starts))
    (losses, hits, _), *others = ranks
    for other_losses, other_hits, _ in others:
        torch.testing.assert_close(other_losses, losses, rtol=0, atol=0, equal_nan=True)
        assert hits is None or torch.equal(other_hits, hits)
    stops = [*starts[1:], batch.scores.shape[1]]
    # a rank without classes has the gradient of one that is masked
    parts = [
        g[:, : stop - start] for (*_, g), start, stop in zip(ranks, starts, stops, strict=True)
    ]
    return losses, hits, torch.cat(parts, 1)

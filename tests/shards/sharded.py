"""A loss on the processes of a group, each of which has a shard of the classes, and the loss of all classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from losses import exactly_equal
from processes import Ranks
from torch import Tensor

from triton_topk import ClassShard, TopkHits


class Results(NamedTuple):
    loss: Tensor
    hits: TopkHits | None
    gradient: Tensor


def compute(loss: Callable[..., Any], scores: Tensor, labels: Tensor, **options: Any) -> Results:
    """The loss of these scores, and their gradient for an upstream gradient that is not the same for all losses."""
    leaf = scores.detach().requires_grad_()
    out = loss(leaf, labels, **options)
    value, hits = out if isinstance(out, tuple) else (out, None)
    upstream = torch.linspace(1, 2, max(1, value.numel()), dtype=value.dtype)
    value.backward(upstream[: value.numel()].reshape(value.shape))
    assert leaf.grad is not None
    return Results(value.detach(), hits, leaf.grad)


def shard_of(scores: Tensor, starts: Sequence[int]) -> tuple[Tensor, ClassShard]:
    """This rank's scores, whose classes begin where it says, and its shard."""
    class_dim, rank = min(1, scores.dim() - 1), dist.get_rank()
    total = scores.shape[class_dim]
    start, stop = [*starts, total][rank : rank + 2]
    return scores.narrow(class_dim, start, stop - start), ClassShard(start=start, total=total)


def compute_shard(
    loss: Callable[..., Any],
    scores: Tensor,
    labels: Tensor,
    starts: Sequence[int],
    options: dict[str, Any],
) -> Results:
    local, shard = shard_of(scores, starts)
    return compute(loss, local, labels, shard=shard, **options)


def together(results: Sequence[Results]) -> Results:
    """The results, which are the same on every rank, with the gradient of all classes."""
    first, *others = results
    for other in others:
        exactly_equal(other[:2], first[:2], equal_nan=True)
    class_dim = min(1, first.gradient.dim() - 1)
    return first._replace(gradient=torch.cat([x.gradient for x in results], class_dim))


def assert_equal(found: Results, expected: Results) -> None:
    """To the rounding of the loss and of the gradient; the hits exactly."""
    exactly_equal(found.hits, expected.hits)
    for actual, wanted in ((found.loss, expected.loss), (found.gradient, expected.gradient)):
        options = {"rtol": 1e-12, "atol": 1e-12} if wanted.dtype == torch.float64 else {}
        torch.testing.assert_close(actual, wanted, equal_nan=True, **options)


def assert_the_whole(
    ranks: Ranks,
    loss: Callable[..., Any],
    scores: Tensor,
    labels: Tensor,
    starts: Sequence[int],
    **options: Any,
) -> None:
    results = ranks(compute_shard, loss, scores, labels, starts, options)
    assert_equal(together(results), compute(loss, scores, labels, **options))

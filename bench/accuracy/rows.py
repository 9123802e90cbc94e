"""The rows of scores of a point."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.accuracy.points import Point

AHEAD = 10  # of the label, in units of k tau


@dataclass(frozen=True, eq=False)
class Row:
    scores: Tensor  # (n,), in the dtype of the point
    label: int


def rows(point: Point, seed: int) -> list[Row]:
    """Rows that equal arguments make equal, and every dtype but for rounding.

    Rows that the dtype cannot hold are left out.
    """
    words = f"{seed} {replace(point, dtype='')!r}"
    generator = torch.Generator().manual_seed(zlib.crc32(words.encode()))
    dtype = getattr(torch, point.dtype)
    found = [Row(scores.to(dtype), label) for scores, label in _rows(point, generator)]
    return [row for row in found if row.scores.isfinite().all()]


def _rows(point: Point, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    k, n = point.k, point.n

    def gauss() -> Tensor:
        return point.spread * torch.randn(n, generator=generator, dtype=torch.float64)

    def anywhere() -> int:
        return int(torch.randint(n, (), generator=generator))

    def above_pivot(distance: float) -> tuple[Tensor, int]:
        """The label's score is this far above the k-th largest of the others."""
        scores, label = gauss(), anywhere()
        others = torch.cat((scores[:label], scores[label + 1 :]))
        scores[label] = others.topk(k).values[-1] + distance
        return scores, label

    corner = k * point.margin
    if point.gap is not None:
        for rank in (0, k - 1):
            scores = gauss()
            top = scores.topk(k).indices
            rest = scores.clone().index_fill_(0, top, -torch.inf).max()
            scores[top] += rest + point.gap - scores[top[-1]]
            yield scores, int(top[rank])
    elif point.lead is not None:
        yield above_pivot(corner + point.lead)
        yield above_pivot(corner + point.lead)
    else:
        yield gauss(), anywhere()
        scores = gauss()
        yield scores, int(scores.topk(k).indices[-1])
        yield above_pivot(corner)
        yield above_pivot(corner + AHEAD * k * point.tau)

"""The rows of scores of a point, and the truth about them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.accuracy.points import Point
from triton_topk.reference import exact_smooth_svm

AHEAD = 10  # of the label, in units of k tau


@dataclass(frozen=True, eq=False)
class Row:
    place: str  # of the label
    scores: Tensor  # (n,), in the dtype of the point
    label: int


def rows(point: Point, seed: int) -> list[Row]:
    """Fresh rows, the same for equal arguments, and but for rounding for every dtype.

    Rows that the dtype cannot hold are left out.
    """
    words = f"{seed} {replace(point, dtype='')!r}"
    generator = torch.Generator().manual_seed(zlib.crc32(words.encode()))
    dtype = getattr(torch, point.dtype)
    found = [
        Row(place, scores.to(dtype), label) for place, scores, label in _rows(point, generator)
    ]
    return [row for row in found if row.scores.isfinite().all()]


def truth(point: Point, row: Row) -> tuple[float, Tensor]:
    """The exact loss, and the exact gradient (n,), in float64."""
    loss, gradient = exact_smooth_svm(
        row.scores.tolist(), row.label, point.k, tau=point.tau, margin=point.margin
    )
    return float(loss), torch.tensor([float(x) for x in gradient], dtype=torch.float64)


def _rows(point: Point, generator: torch.Generator) -> Iterator[tuple[str, Tensor, int]]:
    k, n = point.k, point.n

    def gauss(size: int) -> Tensor:
        return point.spread * torch.randn(size, generator=generator, dtype=torch.float64)

    def above_pivot(distance: float) -> tuple[Tensor, int]:
        """The label's score is this far above the k-th largest of the others."""
        scores = gauss(n)
        label = int(torch.randint(n, (), generator=generator))
        others = torch.cat((scores[:label], scores[label + 1 :]))
        scores[label] = others.topk(k).values[-1] + distance
        return scores, label

    corner = k * point.margin
    if point.gap is not None:
        for place, rank in (("largest", 0), ("k-th", k - 1)):
            scores = gauss(n)
            top = scores.topk(k).indices
            rest = scores.clone().index_fill_(0, top, -torch.inf).max()
            scores[top] += rest + point.gap - scores[top[-1]]
            yield place, scores, int(top[rank])
    elif point.lead is not None:
        yield "ahead", *above_pivot(corner + point.lead)
        yield "ahead", *above_pivot(corner + point.lead)
    else:
        yield "anywhere", gauss(n), int(torch.randint(n, (), generator=generator))
        scores = gauss(n)
        yield "k-th", scores, int(scores.topk(k).indices[-1])
        yield "in the corner", *above_pivot(corner)
        yield "ahead", *above_pivot(corner + AHEAD * k * point.tau)

"""Errors are measured at a grid over (k, tau, n, spread, dtype), and along walks away from its middle."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

KS = (1, 2, 5, 10, 16, 20, 50)
TAUS = (1e-3, 0.1, 1.0, 10.0, 100.0)
SPREADS = (0.01, 1.0, 10.0, 100.0, 1000.0)
DTYPES = ("float64", "float32", "float16", "bfloat16")
AHEAD = 10  # of the label, in units of k tau


@dataclass(frozen=True)
class Point:
    """A point has the loss's arguments, and scores of n classes with a standard deviation, the spread."""

    k: int = 5
    tau: float = 1.0
    n: int = 1000
    spread: float = 1.0
    dtype: str = "float32"
    margin: float = 1.0
    gap: float | None = None  # of the k largest, the label among them, above all others
    lead: float | None = None  # of the label, above where the hard loss becomes 0


BASE = Point()


def _walk(values: Iterable[Any], *names: str) -> dict[str, Point]:
    """These arguments all have each of the values."""
    points = {x: replace(BASE, **dict.fromkeys(names, x)) for x in values}
    return {f"{x:,}" if isinstance(x, int) else f"{x:g}": p for x, p in points.items()}


# Each goes away from BASE in one direction.
WALKS = {
    "spread up": _walk((10.0, 100.0, 1e3, 1e4, 1e6, 1e10, 1e20, 1e30), "spread"),
    "spread down": _walk((0.1, 0.01, 1e-4, 0.0), "spread"),
    "tau up": _walk((10.0, 100.0, 1e4, 1e6, 1e10, 1e30, 1e37), "tau"),
    "tau down": _walk((0.1, 0.01, 1e-3, 1e-4, 1e-6, 1e-10, 1e-30, 1e-37), "tau"),
    "unit up": _walk((1e3, 1e10, 1e30, 1e36, 1e37), "tau", "spread", "margin"),
    "unit down": _walk((1e-3, 1e-10, 1e-30, 1e-36, 1e-37), "tau", "spread", "margin"),
    "n up": _walk((10_000, 30_000), "n"),
    "n down": _walk((100, 10, 7, 6), "n"),
    "k up": _walk((10, 16, 20, 50, 100, 200), "k"),
    "k down": _walk((2, 1), "k"),
    "gap up": _walk((1.0, 10.0, 30.0, 34.0, 35.0, 40.0, 60.0, 100.0), "gap"),
    "precision down": {x: replace(BASE, dtype=x) for x in ("float16", "bfloat16")},
}

GRID = tuple(
    Point(k, tau, n, spread, dtype)
    for k, tau, spread, dtype in product(KS, TAUS, SPREADS, DTYPES)
    for n in (k + 1, 100, 1000)
    # All of it at k = 5 in float32; at other k only n = 100, or only tau = 1, or both.
    if (k == 5) + (tau == 1) + (n == 100) >= (1 if dtype == "float32" else 2)
    if dtype == "float32" or n == 100
)

CROSS_ENTROPY = tuple(
    replace(BASE, k=1, margin=0.0, lead=lead, dtype=dtype)
    for lead in (-1000.0, -100.0, -10.0, 0.0, 1.0, 10.0, 17.0, 30.0, 60.0, 85.0)
    for dtype in DTYPES
)


def all_points() -> list[Point]:
    walked = [point for walk in WALKS.values() for point in walk.values()]
    return list(dict.fromkeys([BASE, *GRID, *walked, *CROSS_ENTROPY]))


@dataclass(frozen=True, eq=False)
class Row:
    scores: Tensor  # (n,), in the dtype of the point
    label: int


def rows(point: Point, seed: int) -> list[Row]:
    """Make rows that equal arguments make equal, and every dtype but for rounding.

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

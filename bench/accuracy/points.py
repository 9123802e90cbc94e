"""Where errors are measured: a grid over (k, tau, n, spread, dtype), and walks away from its middle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

KS = (1, 2, 5, 10, 16, 20, 50)
TAUS = (1e-3, 0.1, 1.0, 10.0, 100.0)
SPREADS = (0.01, 1.0, 10.0, 100.0, 1000.0)
DTYPES = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True, order=True)
class Point:
    """The loss's arguments, and scores of n classes with a standard deviation, the spread."""

    k: int = 5
    tau: float = 1.0
    n: int = 1000
    spread: float = 1.0
    dtype: str = "float32"
    margin: float = 1.0
    gap: float | None = None  # of the k largest, the label among them, above all others
    lead: float | None = None  # of the label, above where the hard loss becomes 0

    def __str__(self) -> str:
        words = [f"k = {self.k}, tau = {self.tau:g}, n = {self.n:,}, spread {self.spread:g}"]
        words += [f"margin {self.margin:g}"] if self.margin != 1 else []
        words += [f"gap {self.gap:g}"] if self.gap is not None else []
        words += [f"lead {self.lead:g}"] if self.lead is not None else []
        words += [self.dtype] if self.dtype != "float32" else []
        return ", ".join(words)

    @property
    def is_cross_entropy(self) -> bool:
        return (self.k, self.tau, self.margin) == (1, 1.0, 0.0)


BASE = Point()


def _walk(name: str, values: Iterable[Any]) -> dict[str, Point]:
    return {
        f"{x:,}" if isinstance(x, int) else f"{x:g}": replace(BASE, **{name: x}) for x in values
    }


def _unit(values: Iterable[float]) -> dict[str, Point]:
    return {f"{x:g}": replace(BASE, tau=x, spread=x, margin=x) for x in values}


# Each goes away from BASE in one direction.
WALKS = {
    "spread up": _walk("spread", (10.0, 100.0, 1e3, 1e4, 1e6, 1e10, 1e20, 1e30)),
    "spread down": _walk("spread", (0.1, 0.01, 1e-4, 0.0)),
    "tau up": _walk("tau", (10.0, 100.0, 1e4, 1e6, 1e10, 1e30, 1e37)),
    "tau down": _walk("tau", (0.1, 0.01, 1e-3, 1e-4, 1e-6, 1e-10, 1e-30, 1e-37)),
    "unit up": _unit((1e3, 1e10, 1e30, 1e36, 1e37)),
    "unit down": _unit((1e-3, 1e-10, 1e-30, 1e-36, 1e-37)),
    "n up": _walk("n", (10_000, 30_000)),
    "n down": _walk("n", (100, 10, 7, 6)),
    "k up": _walk("k", (10, 16, 20, 50, 100, 200)),
    "k down": _walk("k", (2, 1)),
    "gap up": _walk("gap", (1.0, 10.0, 30.0, 34.0, 35.0, 40.0, 60.0, 100.0)),
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

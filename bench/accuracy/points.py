"""Where errors are measured: a grid over (k, tau, n, spread, dtype), and walks away from its middle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

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
        words = [
            f"k = {self.k}",
            f"tau = {self.tau:g}",
            f"n = {self.n:,}",
            f"spread {self.spread:g}",
        ]
        words += [f"margin {self.margin:g}"] if self.margin != 1 else []
        words += [f"gap {self.gap:g}"] if self.gap is not None else []
        words += [f"lead {self.lead:g}"] if self.lead is not None else []
        words += [self.dtype] if self.dtype != "float32" else []
        return ", ".join(words)

    @property
    def is_cross_entropy(self) -> bool:
        return (self.k, self.tau, self.margin) == (1, 1.0, 0.0)


BASE = Point()


@dataclass(frozen=True)
class Walk:
    """Points that go away from BASE in one direction."""

    name: str
    values: tuple[str, ...]
    points: tuple[Point, ...]


def _walk(name: str, points: dict[str, Point]) -> Walk:
    return Walk(name, tuple(points), tuple(points.values()))


def _in_units_of(x: float) -> Point:
    return replace(BASE, tau=x, spread=x, margin=x)


WALKS = (
    _walk(
        "spread up",
        {f"{x:g}": replace(BASE, spread=x) for x in (10.0, 100.0, 1e3, 1e4, 1e6, 1e10, 1e20, 1e30)},
    ),
    _walk("spread down", {f"{x:g}": replace(BASE, spread=x) for x in (0.1, 0.01, 1e-4, 0.0)}),
    _walk(
        "tau up",
        {f"{x:g}": replace(BASE, tau=x) for x in (10.0, 100.0, 1e4, 1e6, 1e10, 1e30, 1e37, 3e37)},
    ),
    _walk(
        "tau down",
        {
            f"{x:g}": replace(BASE, tau=x)
            for x in (0.1, 0.01, 1e-3, 1e-4, 1e-6, 1e-10, 1e-30, 1e-37, 1e-38, 1e-39)
        },
    ),
    _walk("unit up", {f"{x:g}": _in_units_of(x) for x in (1e3, 1e10, 1e30, 1e36, 1e37, 3e37)}),
    _walk(
        "unit down",
        {
            f"{x:g}": _in_units_of(x)
            for x in (1e-3, 1e-10, 1e-30, 1e-36, 1e-37, 1e-38, 1e-39, 1e-40, 1e-42)
        },
    ),
    _walk("n up", {f"{x:,}": replace(BASE, n=x) for x in (10_000, 30_000)}),
    _walk("n down", {f"{x}": replace(BASE, n=x) for x in (100, 10, 7, 6)}),
    _walk("k up", {f"{x}": replace(BASE, k=x) for x in (10, 16, 20, 50, 100, 200)}),
    _walk("k down", {f"{x}": replace(BASE, k=x) for x in (2, 1)}),
    _walk(
        "gap up",
        {f"{x:g}": replace(BASE, gap=x) for x in (1.0, 10.0, 30.0, 34.0, 35.0, 40.0, 60.0, 100.0)},
    ),
    _walk("precision down", {x: replace(BASE, dtype=x) for x in ("float16", "bfloat16")}),
)

_LENGTHS = {k: (k + 1, 100, 1000) for k in KS}
GRID = tuple(
    Point(k, tau, n, spread, dtype)
    for k, tau, spread, dtype in product(KS, TAUS, SPREADS, DTYPES)
    for n in _LENGTHS[k]
    # All of it at k = 5 in float32; elsewhere only n = 100, or only tau = 1, or both.
    if (k == 5) + (tau == 1) + (n == 100) >= (1 if dtype == "float32" else 2)
    if dtype == "float32" or n == 100
)

LEADS = (-1000.0, -100.0, -10.0, 0.0, 1.0, 10.0, 17.0, 30.0, 60.0, 85.0)
CROSS_ENTROPY = tuple(
    Point(1, 1.0, n, 1.0, dtype, margin=0.0, lead=lead)
    for n, lead, dtype in product((2, 100, 1000), LEADS, DTYPES)
    if n == 1000 or dtype == "float32"
)


def all_points() -> list[Point]:
    walked = [point for walk in WALKS for point in walk.points]
    return list(dict.fromkeys([BASE, *GRID, *walked, *CROSS_ENTROPY]))

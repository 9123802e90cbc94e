"""Along which axes a run measured, found from its cells."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from bench.implementations import IMPLEMENTATIONS
from bench.results import BOTH, FORWARD, Cell, Measurement, Run

FEWEST = 3  # points of an axis and of a fit: any two are on a line
WORKS = (BOTH, FORWARD)
DTYPES = ("float32", "bfloat16", "float16", "float64")


class Shape(NamedTuple):
    n: int
    k: int
    batch: int


class Kind(NamedTuple):
    """What else is the same all along an axis."""

    dtype: str
    work: str

    def __str__(self) -> str:
        return f"{self.dtype}, {self.work}"


@dataclass(frozen=True)
class Axis:
    """Shapes that differ in one number."""

    variable: str  # "n", "k" or "batch"
    fixed: str  # the other numbers
    shapes: tuple[Shape, ...]

    def value(self, shape: Shape) -> int:
        return int(getattr(shape, self.variable))

    @property
    def headers(self) -> list[str]:
        return [f"{self.value(shape):,}" for shape in self.shapes]

    def __str__(self) -> str:
        return f"{self.variable} at {self.fixed}"


Series = dict[str, dict[Shape, Measurement]]


def kinds(run: Run) -> list[Kind]:
    """The main one first."""
    found = {Kind(m.cell.dtype, m.cell.work) for m in run.measurements}
    return sorted(found, key=lambda kind: (DTYPES.index(kind.dtype), WORKS.index(kind.work)))


def axes(run: Run) -> list[Axis]:
    """That of n, those of k, those of the batch."""
    shapes = {Shape(m.cell.n, m.cell.k, m.cell.batch) for m in run.measurements}
    candidates = [*_along_n(shapes), *_along_k(shapes), *_along_batch(shapes)]
    return [axis for axis in candidates if len(axis.shapes) >= FEWEST]


def series(run: Run, axis: Axis, kind: Kind) -> Series:
    """The measurements along an axis, of each implementation that has more than one."""
    found = measured(run, axis, kind)
    return {name: points for name, points in found.items() if len(points) > 1}


def measured(run: Run, axis: Axis, kind: Kind) -> Series:
    """Measurements by implementation at the shapes of an axis."""
    by_cell = {m.cell: m for m in run.measurements}
    found = {
        name: {
            shape: by_cell[cell]
            for shape in axis.shapes
            if (cell := Cell(name, *shape, *kind)) in by_cell
        }
        for name in IMPLEMENTATIONS
    }
    return {name: points for name, points in found.items() if points}


def on_no_axis(run: Run) -> list[Measurement]:
    shown = {
        m
        for axis in axes(run)
        for kind in kinds(run)
        for points in series(run, axis, kind).values()
        for m in points.values()
    }
    return sorted((m for m in run.measurements if m not in shown), key=lambda m: str(m.cell))


def _along_n(shapes: set[Shape]) -> list[Axis]:
    """At the k and the number of scores with the most n."""
    candidates = []
    for k, scores in {(s.k, s.n * s.batch) for s in shapes}:
        # the batch is this number over n, rounded
        here = [s for s in shapes if s.k == k and abs(s.n * s.batch - scores) < s.n]
        batches = {s.n: s.batch for s in here}
        candidates.append(((len(batches), scores, -k), k, scores, batches))
    if not candidates:
        return []
    _, k, scores, batches = max(candidates, key=lambda candidate: candidate[0])
    found = tuple(Shape(n, k, batches[n]) for n in sorted(batches))
    return [Axis("n", words(k=k, scores=scores), found)]


def _along_k(shapes: set[Shape]) -> list[Axis]:
    ks = defaultdict(set)
    for s in shapes:
        ks[s.n, s.batch].add(s.k)
    return [
        Axis("k", words(n=n, batch=batch), tuple(Shape(n, k, batch) for k in sorted(ks[n, batch])))
        for n, batch in sorted(ks)
    ]


def _along_batch(shapes: set[Shape]) -> list[Axis]:
    """For each n, at the k with the most batches."""
    found = []
    for n in sorted({s.n for s in shapes}):
        counts = Counter(s.k for s in shapes if s.n == n)
        k = max(counts, key=lambda k: (counts[k], -k))
        batches = sorted({s.batch for s in shapes if (s.n, s.k) == (n, k)})
        found.append(Axis("batch", words(n=n, k=k), tuple(Shape(n, k, batch) for batch in batches)))
    return found


def place(cell: Cell) -> str:
    k = cell.k if IMPLEMENTATIONS[cell.implementation].has_k else None
    return words(n=cell.n, k=k, batch=cell.batch)


def words(**fixed: int | None) -> str:
    unit = {"n": "n = {:,}", "k": "k = {}", "scores": "{:,} scores", "batch": "batch {:,}"}
    return ", ".join(unit[name].format(x) for name, x in fixed.items() if x is not None)

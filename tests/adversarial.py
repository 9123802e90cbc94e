"""Rows of scores that are hard for a top-k loss, and the exact loss and gradient of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.exact import exact_smooth_svm


@dataclass(frozen=True, eq=False)
class Case:
    """A few rows: scores (N, C), float32 values held in float64, and labels (N,) in int64."""

    name: str
    scores: Tensor
    labels: Tensor
    k: int
    tau: float
    margin: float


def cases(k: int, n: int, seed: int = 0) -> Iterator[Case]:
    """Every kind of hard rows of n classes, n > k. Equal arguments give the very same cases."""
    return iter(_cases(k, n, seed))


@functools.cache
def truth(case: Case) -> tuple[Tensor, Tensor]:
    """The exact losses (N,) and gradients (N, C) of a case, rounded to float64."""
    exact = [
        exact_smooth_svm(row, label, case.k, tau=case.tau, margin=case.margin)
        for row, label in zip(case.scores.tolist(), case.labels.tolist(), strict=True)
    ]
    losses = torch.tensor([float(loss) for loss, _ in exact], dtype=torch.float64)
    gradients = torch.tensor([[float(x) for x in row] for _, row in exact], dtype=torch.float64)
    return losses, gradients


@functools.cache
def _cases(k: int, n: int, seed: int) -> tuple[Case, ...]:
    rows = _Rows(k, n, seed)
    case, gauss, at_ranks = rows.case, rows.gauss, rows.at_ranks

    def gaussian(spread: float, tau: float, margin: float = 1.0) -> Case:
        ranked = at_ranks(lambda: spread * gauss(), n // 2, k, k - 1)
        return case(f"spread {spread:g}, tau {tau:g}", ranked, tau, margin)

    found = [
        # Without a margin: margin/tau would make g 1 in every row.
        gaussian(1e-3, 1e-4, margin=0.0),
        gaussian(1, 1e-2, margin=0.0),
        gaussian(1e-3, 1),
        gaussian(1, 1),
        gaussian(1, 1e2),
        gaussian(30, 1),
        gaussian(1e3, 1e-2),
        gaussian(1e4, 1e4),
        gaussian(1e4, 1),
        gaussian(1e4, 1e-4),
        case("all equal", at_ranks(lambda: torch.full((n,), 0.7), 0, n - 1)),
        case("k equal on top", at_ranks(lambda: rows.with_group(k), 0, n - 1)),
        case("k + 1 equal on top", at_ranks(lambda: rows.with_group(k + 1), 0, n - 1)),
        case("k + 1 nearly equal", at_ranks(lambda: rows.with_group(k + 1, 1e-3), 0, k, n - 1)),
    ]
    if 2 * k <= n:
        found.append(case("2 k equal on top", at_ranks(lambda: rows.with_group(2 * k), 0, n - 1)))
    found += [
        case(
            "coarse grid",
            at_ranks(lambda: (3 * gauss()).bfloat16(), n // 2, k)
            + at_ranks(lambda: (2 * gauss()).round() / 2, k),
        ),
        case("one score of 50", at_ranks(lambda: rows.with_dominant(50), 0, k)),
        case("one score of 1000", at_ranks(lambda: rows.with_dominant(1000), 0, k)),
        case("geometric scores", at_ranks(lambda: torch.logspace(-3, 3, n), 0, k)),
        case("geometric exponentials", at_ranks(lambda: 5.0 * torch.arange(n), 0, k)),
        case("label on top or at the bottom", at_ranks(gauss, 0, n - 1)),
        case(
            "label just beside the pivot",
            [rows.from_pivot(+2e-7), rows.from_pivot(-2e-7), *at_ranks(gauss, k - 1)],
        ),
        case("label equal to the pivot", [rows.from_pivot(0), rows.from_pivot(0)]),
        # The corner of the hard loss: z is small, and what margin/tau loses to rounding shows in g.
        case("label a margin above the pivot", [rows.from_pivot(k), rows.from_pivot(k)]),
        case(
            "label a margin above the pivot, tau 0.01",
            [rows.from_pivot(k / 4), rows.from_pivot(k / 4)],
            tau=1e-2,
            margin=0.25,
        ),
        case("some masked", at_ranks(lambda: rows.with_unmasked(max(k + 1, n - n // 3)), 0, k)),
        case("k others unmasked", at_ranks(lambda: rows.with_unmasked(k + 1), 0, k)),
        case("k - 1 others unmasked", at_ranks(lambda: rows.with_unmasked(k), 0, k - 1)),
        case(
            "offset",
            at_ranks(lambda: 1e4 + gauss(), n // 2, k) + at_ranks(lambda: gauss() - 1e4, k),
        ),
    ]
    return tuple(found)


class _Rows:
    def __init__(self, k: int, n: int, seed: int) -> None:
        self.k, self.n = k, n
        self.generator = torch.Generator().manual_seed(seed)

    def case(
        self, name: str, rows: list[tuple[Tensor, int]], tau: float = 1.0, margin: float = 1.0
    ) -> Case:
        scores, labels = [], []
        for row, label in rows:
            order = torch.randperm(self.n, generator=self.generator)
            scores.append(row.float().double()[order])
            labels.append(int((order == label).nonzero()))
        return Case(name, torch.stack(scores), torch.tensor(labels), self.k, tau, margin)

    def at_ranks(self, make_row: Callable[[], Tensor], *ranks: int) -> list[tuple[Tensor, int]]:
        """A row for each rank of the label: 0 is the largest score."""
        rows = [make_row() for _ in ranks]
        return [
            (row, int(row.argsort(descending=True)[rank]))
            for row, rank in zip(rows, ranks, strict=True)
        ]

    def from_pivot(self, gap: float) -> tuple[Tensor, int]:
        """A row whose label is a gap above the k-th largest of the others."""
        others = self.gauss(self.n - 1)
        own = others.sort(descending=True).values[self.k - 1] + gap
        return torch.cat((others, own[None])), self.n - 1

    def gauss(self, size: int | None = None) -> Tensor:
        size = self.n if size is None else size
        return torch.randn(size, generator=self.generator, dtype=torch.float64)

    def with_group(self, size: int, spread: float = 0.0) -> Tensor:
        # At tau = 1 each of the rest weighs exp(-30) times as much.
        rest = 3 - 30 * self.k + self.gauss(self.n - size)
        return torch.cat((3 + spread * self.gauss(size), rest))

    def with_dominant(self, height: float) -> Tensor:
        return torch.cat((torch.tensor([height]), self.gauss(self.n - 1)))

    def with_unmasked(self, count: int) -> Tensor:
        return torch.cat((self.gauss(count), torch.full((self.n - count,), -torch.inf)))

"""Rows of scores that are hard for the Lq loss, and the exact loss and gradient of each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.exact import exact_lq_loss

QS = (0.0, 1e-7, 1e-3, 0.3, 0.7, 1.0)

# Of the label above or below the others: p_y is 1 and 0 in float32 from 17 and 104 on.
_GAPS = (1e-7, 1e-3, 1.0, 10.0, 17.3, 30.0, 60.0, 85.0, 100.0, 1000.0)


@dataclass(frozen=True, eq=False)
class Case:
    """A few rows: scores (N, C), float32 values held in float64, and labels (N,) in int64."""

    name: str
    scores: Tensor
    labels: Tensor


def cases(n: int, seed: int = 0) -> Iterator[Case]:
    """Every kind of hard rows of n >= 2 classes. Equal arguments give the very same cases."""
    return iter(_cases(n, seed))


@functools.cache
def truth(case: Case, q: float, truncation: float | None = None) -> tuple[Tensor, Tensor]:
    """The exact losses (N,) and gradients (N, C) of a case, rounded to float64."""
    exact = [
        exact_lq_loss(row, label, q, truncation=truncation)
        for row, label in zip(case.scores.tolist(), case.labels.tolist(), strict=True)
    ]
    losses = torch.tensor([float(loss) for loss, _ in exact], dtype=torch.float64)
    gradients = torch.tensor([[float(x) for x in row] for _, row in exact], dtype=torch.float64)
    return losses, gradients


@functools.cache
def _cases(n: int, seed: int) -> tuple[Case, ...]:
    generator = torch.Generator().manual_seed(seed)
    inf = torch.inf

    def case(name: str, *rows: tuple[Tensor, float]) -> Case:
        """Rows of n - 1 others and their labels' own scores; the label's place is random."""
        labels = torch.randint(n, (len(rows),), generator=generator)
        scores = [
            torch.cat((others[:label], torch.tensor([own]), others[label:]))
            for (others, own), label in zip(rows, labels.tolist(), strict=True)
        ]
        return Case(name, torch.stack(scores).float().double(), labels)

    def gauss(spread: float = 1.0) -> Tensor:
        return spread * torch.randn(n - 1, generator=generator, dtype=torch.float64)

    def constant(value: float) -> Tensor:
        return torch.full((n - 1,), value, dtype=torch.float64)

    def dominant(height: float) -> Tensor:
        return torch.cat((gauss()[1:], torch.tensor([height], dtype=torch.float64)))

    def beside(gap: float, offset: float = 0.0) -> tuple[Tensor, float]:
        others = gauss() + offset
        return others, others.max().item() + gap

    def masked(unmasked: int) -> Tensor:
        return gauss().where(torch.arange(n - 1) < unmasked, -inf)

    def unlucky() -> Tensor:
        # q log p_y of q = 0.7, in float32: each operation on the way to p_y^q rounds the same way
        top = torch.tensor([0.28831520676612854, -0.08845379948616028], dtype=torch.float64)
        return torch.cat((top, constant(-200.0)))[: n - 1]

    found = [
        case(f"spread {spread:g}", *((gauss(spread), spread * x) for x in (-2.0, 0.1, 2.0)))
        for spread in (1e-3, 1.0, 30.0, 1e3)
    ]
    # The distance to the next class is exact here, and rounded where the others are anywhere.
    found += [case(f"others equal, gap {x:g}", (constant(0), x), (constant(0), -x)) for x in _GAPS]
    found += [case(f"gap {gap:g}", beside(gap), beside(-gap)) for gap in _GAPS]
    return (
        *found,
        case("all equal", (constant(0.7), 0.7)),
        case("coarse grid", ((2 * gauss()).round(), 2.0), ((2 * gauss()).round() / 2, 0.0)),
        case("label ties with the largest", beside(0.0), beside(0.0)),
        case("one other of 50", (dominant(50.0), 0.3), (dominant(50.0), 49.0)),
        case("one other of 1000", (dominant(1000.0), 0.3), (dominant(1000.0), 999.0)),
        case("unlucky roundings of q log p", (unlucky(), -92.01931762695312)),
        case("geometric scores", (torch.logspace(-3, 3, n - 1).double(), 1.0)),
        case("geometric exponentials", (-5.0 * torch.arange(n - 1).double(), -2.5)),
        case("offset 1e4", beside(-3.0, 1e4), beside(3.0, 1e4)),
        case("offset -1e4", beside(-3.0, -1e4), beside(3.0, -1e4)),
        case("some masked", (masked(n // 2), 1.0), (masked(n // 2), -20.0)),
        case("one other unmasked", (masked(1), 0.2), (masked(1), -40.0)),
        case("only the label unmasked", (masked(0), 0.2), (masked(0), -1000.0)),
        case("label masked", (gauss(), -inf), (masked(1), -inf)),
    )

"""Exponents of time, by linear regression of its logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress

from bench.reporting.axes import FEWEST, Axis, Shape
from bench.results import Measurement

FIRST_K = 2  # k = 1 is cross-entropy, without a polynomial


@dataclass(frozen=True)
class Exponent:
    value: float
    error: float  # standard
    points: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f} ({self.points})"


def exponent(x: Sequence[float], y: Sequence[float]) -> Exponent | None:
    """None where there are too few points for a standard error."""
    if len(x) < FEWEST:
        return None
    line = linregress(np.log(x), np.log(y))
    return Exponent(float(line.slope), float(line.stderr), len(x))


def exponents(
    axis: Axis, points: dict[Shape, Measurement]
) -> tuple[Exponent | None, Exponent | None]:
    """Of time per row against n, or of time against k: through all steady points, and the upper half."""
    per_row = axis.variable == "n"
    chosen = sorted(
        (axis.value(shape), m.seconds / (shape.batch if per_row else 1))
        for shape, m in points.items()
        if m.steady and (per_row or axis.value(shape) >= FIRST_K)
    )
    x, y = zip(*chosen, strict=True) if chosen else ((), ())
    lower = len(x) // 2
    return exponent(x, y), exponent(x[lower:], y[lower:])

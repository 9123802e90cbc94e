"""What the operators of each loss are given beside their tensors."""

from __future__ import annotations

import math
from typing import NamedTuple


class SmoothSVM(NamedTuple):
    """The smooth top-k SVM loss."""

    k: int
    tau: float
    margin: float  # of every row, beside what a tensor of margins has for it
    order: int | None  # p of the Taylor-type gradient; None: the exact gradient
    ignore_index: int
    backend: str | None
    hits: int | None = None  # k of the top-k hits, if they are asked for


class HardSVM(NamedTuple):
    """The top-k hinge loss."""

    k: int
    margin: float
    ignore_index: int
    backend: str | None
    hits: int | None = None


class Lq(NamedTuple):
    """The generalised cross-entropy."""

    q: float
    truncation: float | None
    ignore_index: int
    backend: str | None
    hits: int | None = None

    @property
    def truncated_loss(self) -> float:
        """The loss at p_y = truncation."""
        assert self.truncation is not None
        cut = -math.log(self.truncation)
        # (1 - t^q) / q as -log t (1 - exp(-x)) / x, where the last factor goes to 1 with q
        x = self.q * cut
        return cut * (-math.expm1(-x) / x if x > 0 else 1.0)


class SmoothSVMLq(NamedTuple):
    """mix * SmoothSVM + (1 - mix) * Lq."""

    k: int
    tau: float
    margin: float
    order: int | None
    q: float
    truncation: float | None
    mix: float
    ignore_index: int
    backend: str | None
    hits: int | None = None

    @property
    def svm(self) -> SmoothSVM:
        return SmoothSVM(
            self.k,
            self.tau,
            self.margin,
            self.order,
            self.ignore_index,
            self.backend,
            self.hits,
        )

    @property
    def lq(self) -> Lq:
        return Lq(self.q, self.truncation, self.ignore_index, self.backend, self.hits)


Loss = SmoothSVM | HardSVM | Lq | SmoothSVMLq

"""The worst errors over the adversarial suite of the tests, in the terms in which accuracy is promised."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import accuracy_lq
import adversarial_lq
from accuracy import LOSS_BOUND, Errors, errors, gradient_bound
from adversarial import cases

from triton_topk.kernels.backend import FUSED_MAX_K

__all__ = ["LOSS_BOUND", "LQ_ROWS", "SMOOTH_ROWS", "LqRow", "SmoothRow", "lq", "smooth"]

_SHAPES = (
    (1, 13), (2, 30), (5, 6), (5, 24), (5, 100), (10, 11), (10, 40), (16, 17), (16, 64), (16, 150),
    (20, 21), (20, 25), (20, 80), (50, 51), (50, 120),
)  # fmt: skip
SMOOTH_ROWS = tuple(
    (backend, k, n)
    for backend in ("eager", "triton")
    for k, n in _SHAPES
    if backend == "eager" or k <= FUSED_MAX_K
)
_LQ_CLASSES = {"eager": (2, 10, 100, 2000), "triton": (2, 10, 60)}
LQ_ROWS = tuple(
    (backend, q, n)
    for backend, classes in _LQ_CLASSES.items()
    for n in classes
    for q in adversarial_lq.QS
)


@dataclass(frozen=True)
class SmoothRow:
    backend: str
    k: int
    n: int
    loss: float
    gradient: float
    promised: float  # of the gradient
    case: str  # with the worst gradient
    entry: float
    taylor: float  # the gradient, by default order


@dataclass(frozen=True)
class LqRow:
    backend: str
    q: float
    n: int
    loss: float
    gradient: float
    entry: float


def smooth(backend: str, k: int, n: int) -> SmoothRow:
    found: list[Errors] = list(errors(cases(k, n), torch.float32, backend))
    taylor = errors(cases(k, n), torch.float32, backend, 1 + k // 5)
    worst = max(found, key=lambda e: e.gradient)
    return SmoothRow(
        backend,
        k,
        n,
        loss=max(e.loss for e in found),
        gradient=worst.gradient,
        promised=gradient_bound(k, n),
        case=worst.name,
        entry=max(e.entry for e in found),
        taylor=max(e.gradient for e in taylor),
    )


def lq(backend: str, q: float, n: int) -> LqRow:
    found = list(accuracy_lq.errors(adversarial_lq.cases(n), q, torch.float32, backend))
    loss, gradient, entry = (
        max(getattr(e, name) for e in found) for name in ("loss", "gradient", "entry")
    )
    return LqRow(backend, q, n, loss, gradient, entry)

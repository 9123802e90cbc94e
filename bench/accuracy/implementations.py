"""What is measured: losses and their gradients, as a user of each would get them."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

import triton_topk
from bench.accuracy.points import Point
from triton_topk import reference

Loss = Callable[[Tensor, Tensor, Point], Tensor]
"""The losses (N,) of scores (N, C) and labels (N,)."""

EAGER, KERNELS, TAYLOR = "smooth_svm, eager", "smooth_svm, kernels", "smooth_svm taylor, eager"
AUTHORS, AUTHORS_TOP_1 = "authors' SmoothTopkSVM", "authors' SmoothTop1SVM"
LQ_EAGER, LQ_KERNELS = "lq_loss(q=0), eager", "lq_loss(q=0), kernels"
_KERNELS_MOST_K = 16


@dataclass(frozen=True)
class Implementation:
    loss: Loss
    takes: Callable[[Point], bool] = lambda point: True
    package: str | None = None  # without which it cannot run

    def run(self, scores: Tensor, labels: Tensor, point: Point) -> tuple[Tensor, Tensor]:
        """The losses (N,), and the gradient (N, C) of their sum."""
        scores = scores.clone().requires_grad_()
        # The authors' package prints its temperature, and uses what PyTorch has deprecated.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = self.loss(scores, labels, point)
            (gradient,) = torch.autograd.grad(losses.sum(), scores)
        return losses.detach(), gradient


def absent() -> dict[str, str]:
    """The implementations whose packages are not installed, and these."""
    return {
        name: i.package
        for name, i in IMPLEMENTATIONS.items()
        if i.package is not None and find_spec(i.package) is None
    }


def _smooth_svm(backend: str, gradient: str = "exact") -> Loss:
    return lambda scores, labels, point: triton_topk.smooth_svm(
        scores,
        labels,
        point.k,
        tau=point.tau,
        margin=point.margin,
        reduction="none",
        gradient=gradient,
        backend=backend,
    )


def _lq(backend: str) -> Loss:
    return lambda scores, labels, point: triton_topk.lq_loss(
        scores, labels, 0.0, reduction="none", backend=backend
    )


def _reference(algorithm: reference.Algorithm) -> Loss:
    return lambda scores, labels, point: reference.smooth_svm(
        scores, labels, point.k, tau=point.tau, margin=point.margin, algorithm=algorithm
    )


def _authors(name: str) -> Loss:
    """Single losses, of a module that returns their mean."""

    def loss(scores: Tensor, labels: Tensor, point: Point) -> Tensor:
        k = {"k": point.k} if name == "SmoothTopkSVM" else {}
        make = getattr(importlib.import_module("topk.svm"), name)
        mean = make(point.n, alpha=point.margin, tau=point.tau, **k)
        rows = zip(scores.split(1), labels.split(1), strict=True)
        return torch.cat([mean(row, label).reshape(1) for row, label in rows])

    return loss


def _few(point: Point) -> bool:
    """In the interpreter a call takes a second."""
    return point.k in (5, 16) and point.n == 100 and point.dtype == "float32"


IMPLEMENTATIONS = {
    EAGER: Implementation(_smooth_svm("eager")),
    KERNELS: Implementation(_smooth_svm("triton"), lambda p: p.k <= _KERNELS_MOST_K, "triton"),
    TAYLOR: Implementation(_smooth_svm("eager", "taylor")),
    "smooth_svm taylor, kernels": Implementation(_smooth_svm("triton", "taylor"), _few, "triton"),
    "divide and conquer": Implementation(_reference("divide_and_conquer")),
    "summation": Implementation(_reference("summation")),
    AUTHORS: Implementation(_authors("SmoothTopkSVM"), package="topk"),
    AUTHORS_TOP_1: Implementation(_authors("SmoothTop1SVM"), lambda p: p.k == 1, "topk"),
    "F.cross_entropy": Implementation(
        lambda scores, labels, point: F.cross_entropy(scores, labels, reduction="none"),
        lambda p: p.is_cross_entropy,
    ),
    LQ_EAGER: Implementation(_lq("eager"), lambda p: p.is_cross_entropy),
    LQ_KERNELS: Implementation(_lq("triton"), lambda p: p.is_cross_entropy, "triton"),
}

"""The implementations of the benchmark are measured as losses of rows, ours with either backend."""

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from bench import implementations
from bench.accuracy.points import Point

Loss = Callable[[Tensor, Tensor, Point], Tensor]
"""The losses (N,) of scores (N, C) and labels (N,)."""

EAGER, KERNELS, TAYLOR = "smooth_svm, eager", "smooth_svm, kernels", "smooth_svm taylor, eager"
AUTHORS = "authors' SmoothTopkSVM"
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


def _of(name: str, *arguments: str, **options: object) -> Loss:
    """An implementation of the benchmark, with these arguments of the point and these options."""

    def loss(scores: Tensor, labels: Tensor, point: Point) -> Tensor:
        given = options | {argument: getattr(point, argument) for argument in arguments}
        make = implementations.IMPLEMENTATIONS[name].make
        losses = make(point.n, point.k, torch.device("cpu"), reduction="none", **given)
        return losses(scores, labels)

    return loss


def _smooth(name: str, **options: object) -> Loss:
    return _of(name, "tau", "margin", **options)


def _few(point: Point) -> bool:
    """In the interpreter a call takes a second."""
    return point.k in (5, 16) and point.n == 100 and point.dtype == "float32"


def _short(point: Point) -> bool:
    return point.k <= _KERNELS_MOST_K


def _entropy(point: Point) -> bool:
    return (point.k, point.tau, point.margin) == (1, 1.0, 0.0)


IMPLEMENTATIONS = {
    EAGER: Implementation(_smooth("smooth_svm", backend="eager")),
    KERNELS: Implementation(_smooth("smooth_svm", backend="triton"), _short, "triton"),
    TAYLOR: Implementation(_smooth("smooth_svm taylor", backend="eager")),
    "smooth_svm taylor, kernels": Implementation(
        _smooth("smooth_svm taylor", backend="triton"), _few, "triton"
    ),
    "divide and conquer": Implementation(_smooth("divide and conquer")),
    "summation": Implementation(_smooth("summation")),
    AUTHORS: Implementation(_smooth("authors' topk"), package="topk"),
    "authors' SmoothTop1SVM": Implementation(
        _smooth("authors' topk", loss="SmoothTop1SVM"), lambda point: point.k == 1, "topk"
    ),
    "F.cross_entropy": Implementation(_of("F.cross_entropy"), _entropy),
    "lq_loss(q=0), eager": Implementation(_of("lq_loss", q=0.0, backend="eager"), _entropy),
    "lq_loss(q=0), kernels": Implementation(
        _of("lq_loss", q=0.0, backend="triton"), _entropy, "triton"
    ),
}

"""The implementations of the benchmark are measured as losses of rows, ours with each backend."""

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

EAGER, NATIVE, KERNELS = (f"smooth_svm, {backend}" for backend in ("eager", "native", "kernels"))
AUTHORS = "authors' SmoothTopkSVM"


@dataclass(frozen=True)
class Implementation:
    loss: Loss
    takes: Callable[[Point], bool] = lambda point: True
    package: str | None = None  # without which it cannot run

    def run(self, scores: Tensor, labels: Tensor, point: Point) -> tuple[Tensor, Tensor]:
        """Return the losses (N,), and the gradient (N, C) of their sum."""
        scores = scores.clone().requires_grad_()
        # The authors' package prints its temperature, and uses what PyTorch has deprecated.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = self.loss(scores, labels, point)
            (gradient,) = torch.autograd.grad(losses.sum(), scores)
        return losses.detach(), gradient


def absent() -> dict[str, str]:
    """Return the implementations whose packages are not installed, and these."""
    return {
        name: i.package
        for name, i in IMPLEMENTATIONS.items()
        if i.package is not None and find_spec(i.package) is None
    }


def _entropy(point: Point) -> bool:
    return (point.k, point.tau, point.margin) == (1, 1.0, 0.0)


def _of(
    name: str,
    takes: Callable[[Point], bool] = lambda point: True,
    package: str | None = None,
    **options: object,
) -> Implementation:
    """Take one of the benchmark, with these options; one without k is measured where k = 1 is the same."""
    one = implementations.IMPLEMENTATIONS[name]

    def loss(scores: Tensor, labels: Tensor, point: Point) -> Tensor:
        given = {"tau": point.tau, "margin": point.margin} if one.has_k else {}
        device = torch.device("cpu")
        losses = one.make(point.n, point.k, device, reduction="none", **given, **options)
        return losses(scores, labels)

    return Implementation(loss, takes if one.has_k else _entropy, package)


def _short(point: Point) -> bool:
    return point.k <= 16


def _few(point: Point) -> bool:
    """Leave out most cases, since a call in the interpreter takes a second."""
    return point.k in (5, 16) and point.n == 100 and point.dtype == "float32"


def _top_1(point: Point) -> bool:
    return point.k == 1


IMPLEMENTATIONS = {
    EAGER: _of("smooth_svm", backend="eager"),
    NATIVE: _of("smooth_svm", package="numba", backend="native"),
    KERNELS: _of("smooth_svm", _short, "triton", backend="triton"),
    "smooth_svm taylor, eager": _of("smooth_svm taylor", backend="eager"),
    "smooth_svm taylor, native": _of("smooth_svm taylor", package="numba", backend="native"),
    "smooth_svm taylor, kernels": _of("smooth_svm taylor", _few, "triton", backend="triton"),
    "divide and conquer": _of("divide and conquer"),
    "summation": _of("summation"),
    AUTHORS: _of("authors' topk", package="topk"),
    "authors' SmoothTop1SVM": _of("authors' topk", _top_1, "topk", loss="SmoothTop1SVM"),
    "F.cross_entropy": _of("F.cross_entropy"),
    "lq_loss(q=0), eager": _of("lq_loss", q=0.0, backend="eager"),
    "lq_loss(q=0), native": _of("lq_loss", package="numba", q=0.0, backend="native"),
    "lq_loss(q=0), kernels": _of("lq_loss", package="triton", q=0.0, backend="triton"),
}

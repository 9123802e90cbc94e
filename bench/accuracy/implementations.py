"""What is measured: losses and their gradients, as a user of each would get them."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.accuracy.points import Point
from triton_topk import reference
from triton_topk.kernels.backend import FUSED_MAX_K
from triton_topk.losses import Lq, SmoothSVM

Result = tuple[Tensor, Tensor]
"""Losses (N,) and the gradient (N, C) of their sum."""

EAGER, KERNELS = "smooth_svm, eager", "smooth_svm, kernels"
TAYLOR, TAYLOR_KERNELS = "smooth_svm taylor, eager", "smooth_svm taylor, kernels"
DIVIDE_AND_CONQUER, SUMMATION = "divide and conquer", "summation"
AUTHORS, AUTHORS_TOP_1 = "authors' SmoothTopkSVM", "authors' SmoothTop1SVM"
OURS = (EAGER, KERNELS, TAYLOR, TAYLOR_KERNELS)
LQ_EAGER, LQ_KERNELS = "lq_loss(q=0), eager", "lq_loss(q=0), kernels"
CROSS_ENTROPY = "F.cross_entropy"

# In the interpreter a call takes a second.
_TAYLOR_KERNELS_KS, _TAYLOR_KERNELS_N = (5, 16), 100


@dataclass(frozen=True)
class Implementation:
    name: str
    run: Callable[[Tensor, Tensor, Point], Result]
    takes: Callable[[Point], bool] = lambda point: True
    package: str | None = None  # without which it cannot run


def absent() -> dict[str, str]:
    """What cannot run here, and why."""
    missing = {}
    for package in {i.package for i in IMPLEMENTATIONS.values() if i.package is not None}:
        try:
            _import(package)
        except ImportError as error:
            missing[package] = f"`import {package}`: {error}"
    return {i.name: missing[i.package] for i in IMPLEMENTATIONS.values() if i.package in missing}


def _import(package: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(package)


def _smooth_svm(backend: str, *, taylor: bool = False) -> Callable[[Tensor, Tensor, Point], Result]:
    def run(scores: Tensor, labels: Tensor, point: Point) -> Result:
        order = 1 + point.k // 5 if taylor else None
        loss = SmoothSVM(point.k, point.tau, point.margin, order, backend=backend)
        # the operator under reduction "sum", which also gives the single losses
        losses, _, gradient = torch.ops.triton_topk.smooth_svm_with_gradient(
            scores, labels, None, None, None, *loss.values
        )
        return losses, gradient

    return run


def _cross_entropy_by_lq(backend: str) -> Callable[[Tensor, Tensor, Point], Result]:
    def run(scores: Tensor, labels: Tensor, point: Point) -> Result:
        losses, _, gradient = torch.ops.triton_topk.lq_loss_with_gradient(
            scores, labels, None, None, None, *Lq(0.0, backend=backend).values
        )
        return losses, gradient

    return run


def _by_autograd(scores: Tensor, loss: Callable[[Tensor], Tensor]) -> Result:
    scores = scores.clone().requires_grad_()
    losses = loss(scores)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    return losses.detach(), gradient


def _reference(algorithm: reference.Algorithm) -> Callable[[Tensor, Tensor, Point], Result]:
    def run(scores: Tensor, labels: Tensor, point: Point) -> Result:
        return _by_autograd(
            scores,
            lambda s: reference.smooth_svm(
                s, labels, point.k, tau=point.tau, margin=point.margin, algorithm=algorithm
            ),
        )

    return run


def _cross_entropy(scores: Tensor, labels: Tensor, point: Point) -> Result:
    return _by_autograd(scores, lambda s: F.cross_entropy(s, labels, reduction="none"))


def _authors(scores: Tensor, labels: Tensor, point: Point) -> Result:
    from topk.svm import SmoothTopkSVM

    with _silence():
        loss = SmoothTopkSVM(point.n, alpha=point.margin, tau=point.tau, k=point.k)
        return _row_by_row(loss, scores, labels)


def _authors_top_1(scores: Tensor, labels: Tensor, point: Point) -> Result:
    from topk.svm import SmoothTop1SVM

    with _silence():
        return _row_by_row(
            SmoothTop1SVM(point.n, alpha=point.margin, tau=point.tau), scores, labels
        )


def _row_by_row(mean_loss: torch.nn.Module, scores: Tensor, labels: Tensor) -> Result:
    """Single losses from a module that returns their mean."""
    found = [
        _by_autograd(row, lambda s, label=label: mean_loss(s, label).reshape(1))
        for row, label in zip(scores.split(1), labels.split(1), strict=True)
    ]
    return torch.cat([losses for losses, _ in found]), torch.cat([g for _, g in found])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The package prints its temperature, and uses what PyTorch has deprecated."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


IMPLEMENTATIONS = {
    i.name: i
    for i in (
        Implementation(EAGER, _smooth_svm("eager")),
        Implementation(
            KERNELS, _smooth_svm("triton"), lambda p: p.k <= FUSED_MAX_K, package="triton"
        ),
        Implementation(TAYLOR, _smooth_svm("eager", taylor=True)),
        Implementation(
            TAYLOR_KERNELS,
            _smooth_svm("triton", taylor=True),
            lambda p: (
                p.k in _TAYLOR_KERNELS_KS and p.n == _TAYLOR_KERNELS_N and p.dtype == "float32"
            ),
            package="triton",
        ),
        Implementation(DIVIDE_AND_CONQUER, _reference("divide_and_conquer")),
        Implementation(SUMMATION, _reference("summation")),
        Implementation(AUTHORS, _authors, package="topk"),
        Implementation(AUTHORS_TOP_1, _authors_top_1, lambda p: p.k == 1, package="topk"),
        Implementation(CROSS_ENTROPY, _cross_entropy, lambda p: p.is_cross_entropy),
        Implementation(LQ_EAGER, _cross_entropy_by_lq("eager"), lambda p: p.is_cross_entropy),
        Implementation(
            LQ_KERNELS,
            _cross_entropy_by_lq("triton"),
            lambda p: p.is_cross_entropy,
            package="triton",
        ),
    )
}

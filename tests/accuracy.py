"""Errors against the truth, in the terms in which the accuracy of the losses is promised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from adversarial import Case, truth
from torch import Tensor

import triton_topk  # noqa: F401 (registers the operators)
from triton_topk.batch import N_TENSORS
from triton_topk.losses import SmoothSVM

# What float32 cannot hold, and does not have to.
_SMALLEST = 1e-37


@dataclass(frozen=True)
class Errors:
    name: str
    loss: float  # relative
    gradient: float  # relative to the row's largest entry
    entry: float  # relative, worst single entry above 1e-30


def errors(
    cases: Iterable[Case],
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
    order: int | None = None,
    compute: Callable[[Tensor, Tensor, SmoothSVM], tuple[Tensor, Tensor]] | None = None,
) -> Iterator[Errors]:
    """The worst errors over the rows of each case; cases that share tau and margin are one batch.

    Where the loss is exponentially small the rounding of z, |z| 2^-23, is part of the result.  The losses and their
    gradient are those of the operator, unless they are computed otherwise.
    """
    batches: dict[tuple[int, float, float], list[Case]] = defaultdict(list)
    for case in cases:
        batches[case.k, case.tau, case.margin].append(case)
    for (k, tau, margin), batch in batches.items():
        scores = torch.cat([case.scores for case in batch]).to(dtype)
        labels = torch.cat([case.labels for case in batch])
        loss = SmoothSVM(k, tau, margin, order, backend=backend)
        losses, gradient = (compute or _operator)(scores, labels, loss)
        sizes = [len(case.labels) for case in batch]
        ours = zip(losses.split(sizes), gradient.split(sizes), strict=True)
        for case, (of_losses, of_gradient) in zip(batch, ours, strict=True):
            yield _errors(case, of_losses, of_gradient)


def _operator(scores: Tensor, labels: Tensor, loss: SmoothSVM) -> tuple[Tensor, Tensor]:
    # under reduction "sum", which also gives the single losses
    losses, _, gradient = torch.ops.triton_topk.smooth_svm_with_gradient(
        scores, labels, *[None] * (N_TENSORS - 2), *loss.values
    )
    return losses, gradient


def _errors(case: Case, losses: Tensor, gradients: Tensor) -> Errors:
    true_losses, true_gradients = truth(case)
    # below the normal numbers a backend may have 0
    smallest = torch.finfo(gradients.dtype).smallest_normal
    z = _log_odds(true_losses / case.tau)
    allowed = z.clamp(max=0).abs() * 2.0**-23
    size = true_gradients.abs()
    largest = size.amax(1)
    wrong = ((gradients - true_gradients).abs() - smallest).clamp(min=0)
    return Errors(
        case.name,
        _worst((losses - true_losses).abs() / true_losses - allowed, true_losses > _SMALLEST),
        _worst(wrong.amax(1) / largest - allowed, largest > _SMALLEST),
        _worst(wrong / size - allowed[:, None], size > 1e-30),
    )


def _log_odds(softplus: Tensor) -> Tensor:
    """z from softplus(z)."""
    return softplus + torch.log(-torch.expm1(-softplus))


def _worst(error: Tensor, counted: Tensor) -> float:
    assert not error[counted].isnan().any()
    return error[counted].amax().clamp(min=0).item() if counted.any() else 0.0


LOSS_BOUND = 5e-7
ENTRY_BOUND = 1e-4


def gradient_bound(k: int, n: int) -> float:
    """The promise for float32, relative to the row's largest entry."""
    if n >= 4 * k or k <= 10:
        return 1e-6
    return 2e-5 if k <= 16 else 2e-4


def assert_promised(cases: Iterable[Case], k: int, n: int, **options: Any) -> None:
    """The accuracy promised for float32."""
    for e in errors(cases, **options):
        assert e.loss <= LOSS_BOUND, e
        assert e.gradient <= gradient_bound(k, n), e
        assert e.entry <= ENTRY_BOUND or n < 4 * k, e

"""The errors of a loss and its gradient are measured against the definition, and limited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from triton_topk.check.losses import Loss
from triton_topk.check.rows import Case

# A difference from 1, of which the definitions have some, is no more exact in float64.
_SMALLEST = 1e-15


class Errors(NamedTuple):
    loss: float  # relative, of the sum over the rows
    gradient: float  # relative to the largest entry of its row, in the worst row

    def __str__(self) -> str:
        return f"{self.loss:.0e}/{self.gradient:.0e}"


def errors(
    loss: Loss, cases: list[Case], dtype: torch.dtype, device: torch.device
) -> Iterator[Errors]:
    """Yield the errors of each case; truth is computed on the CPU, of the scores as the dtype has them."""
    scores = torch.cat([case.scores for case in cases]).to(dtype)
    truth = _with_gradient(loss.truth, scores.double(), torch.cat([case.labels for case in cases]))
    sizes = [len(case.labels) for case in cases]
    # A gradient may be too small for its dtype, too.
    smallest = max(_SMALLEST, torch.finfo(dtype).tiny * torch.finfo(dtype).eps)
    for case, true_losses, true in zip(cases, *(t.split(sizes) for t in truth), strict=True):
        found, gradient = _with_gradient(
            partial(loss, reduction="sum"), case.scores.to(dtype).to(device), case.labels.to(device)
        )
        true_loss = true_losses.sum()
        worst = (gradient - true).abs().amax(1)
        yield Errors(
            _relative((found - true_loss).abs(), true_loss, _SMALLEST),
            _relative(worst, true.abs().amax(1), smallest),
        )


def allowed(loss: Loss, dtype: torch.dtype) -> Errors:
    """Return the largest errors that are no sign of a bug."""
    # Half precision is float32 inside. A loss of exp(-x) is no better than x times the rounding of x, and x is below 35
    # where the loss is not too small to be checked. In float64 it is the definitions that lose digits: they subtract
    # logarithms as large as the scores, which reach 4000.
    arithmetic = 1e-11 if dtype == torch.float64 else 5e-6
    # The gradient is rounded to the dtype of the scores at last, or, by some compilers, cut off.
    return Errors(arithmetic, arithmetic + torch.finfo(dtype).eps + loss.approximation)


def _with_gradient(
    loss: Callable[[Tensor, Tensor], Tensor], scores: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss, and the gradient of its sum, in float64 on the CPU."""
    leaf = scores.detach().requires_grad_()
    found = loss(leaf, labels)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    return found.detach().cpu().double(), gradient.cpu().double()


def _relative(error: Tensor, true: Tensor, smallest: float) -> float:
    return float(((error - smallest).clamp(min=0) / true.clamp(min=smallest)).amax())

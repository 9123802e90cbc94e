"""Errors of the Lq loss against the truth, in the terms in which its accuracy is promised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from accuracy import Errors
from adversarial_lq import Case, truth
from torch import Tensor

import triton_topk

# What the floating-point numbers cannot hold with all digits, and do not have to.
_SMALLEST = {torch.float32: 1e-37, torch.float64: 1e-305}


def errors(
    cases: Iterable[Case],
    q: float,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
    truncation: float | None = None,
) -> Iterator[Errors]:
    """The worst errors over the rows of each case, all of them one batch.

    To the gradient the rounding of q log p_y may be added.
    """
    batch = list(cases)
    scores = torch.cat([case.scores for case in batch]).to(dtype).requires_grad_()
    labels = torch.cat([case.labels for case in batch])
    losses, total = (
        triton_topk.lq_loss(
            scores, labels, q, truncation=truncation, reduction=reduction, backend=backend
        )
        for reduction in ("none", "sum")
    )
    total.backward()
    assert scores.grad is not None
    sizes = [len(case.labels) for case in batch]
    ours = zip(losses.detach().split(sizes), scores.grad.split(sizes), strict=True)
    for case, (of_losses, of_gradient) in zip(batch, ours, strict=True):
        true_losses, true_gradients = truth(case, q, truncation)
        size = true_gradients.abs()
        largest = size.amax(1, keepdim=True)
        tiny = _SMALLEST[dtype]
        wrong = _wrong(of_gradient.double(), true_gradients, tiny)
        wrong_losses = _wrong(of_losses.double(), true_losses, tiny)
        allowed = _rounding_of_factor(case, q, torch.finfo(dtype).eps)
        yield Errors(
            case.name,
            _worst(wrong_losses / true_losses.clamp(min=tiny)),
            _worst(wrong / largest.clamp(min=tiny) - allowed),
            _worst((wrong / size.clamp(min=tiny) - allowed)[size > 1e-30]),
        )


def _wrong(x: Tensor, truth: Tensor, tolerance: float) -> Tensor:
    """Return by how much more than the tolerance x is off; 0 where both are infinite."""
    return ((x - truth).abs() - tolerance).clamp(min=0).masked_fill(x == truth, 0)


def _rounding_of_factor(case: Case, q: float, eps: float) -> Tensor:
    log_p = case.scores.log_softmax(1).gather(1, case.labels[:, None])
    # p_y = 0 has no rounding
    return eps * q * log_p.abs().masked_fill(log_p.isneginf(), 0)


def _worst(error: Tensor) -> float:
    assert not error.isnan().any()
    return error.amax().clamp(min=0).item() if error.numel() else 0.0


def assert_promised(
    cases: Iterable[Case],
    q: float,
    backend: str | None = None,
    truncation: float | None = None,
) -> None:
    """The accuracy promised for float32."""
    for e in errors(cases, q, backend=backend, truncation=truncation):
        assert e.loss <= 1e-6, e
        assert e.gradient <= 1e-6, e
        assert e.entry <= 1e-5, e

"""The losses as modules."""

from __future__ import annotations

import torch
from torch import Tensor

from triton_topk import functional


class SmoothSVMLoss(torch.nn.Module):
    """Smooth top-k SVM loss; see :func:`triton_topk.smooth_svm` for the arguments.

    `weight` is a buffer: it follows `.to()` and is in the `state_dict`, as in
    `torch.nn.CrossEntropyLoss`.
    """

    weight: Tensor | None

    def __init__(
        self,
        k: int = 5,
        tau: float = 1.0,
        margin: float = 1.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        gradient: str = "exact",
        order: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.k = k
        self.tau = tau
        self.margin = margin
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.gradient = gradient
        self.order = order
        self.backend = backend

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of scores (N, C, ...) for labels (N, ...)."""
        return functional.smooth_svm(
            scores,
            labels,
            self.k,
            tau=self.tau,
            margin=self.margin,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            gradient=self.gradient,
            order=self.order,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return (
            f"k={self.k}, tau={self.tau}, margin={self.margin}, "
            f"reduction={self.reduction!r}, gradient={self.gradient!r}"
        )

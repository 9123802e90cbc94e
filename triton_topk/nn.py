"""The losses as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from triton_topk import functional
from triton_topk.pruning import TruncatedLqLoss

__all__ = ["HardSVMLoss", "LqLoss", "SmoothSVMLoss", "SmoothSVMLqLoss", "TruncatedLqLoss"]


class _Loss(torch.nn.Module):
    """A function of scores and labels with fixed options, which are attributes.

    `weight` is a buffer: it follows `.to()` and is in the `state_dict`, as in
    `torch.nn.CrossEntropyLoss`; and so is a margin that is a tensor.
    """

    weight: Tensor | None

    def __init__(self, function: Callable[..., Any], weight: Tensor | None, **options: Any) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self._function = function
        self._options = tuple(options)
        for name, value in options.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(
        self, scores: Tensor, labels: Tensor, normalizer: float | Tensor | None = None
    ) -> Any:
        """The loss of scores (N, C, ...) for labels (N, ...); with `return_topk_hits`, and the hits.

        normalizer: divides the sum of the losses, as in the function.
        """
        options = {name: getattr(self, name) for name in self._options}
        return self._function(scores, labels, weight=self.weight, normalizer=normalizer, **options)

    def extra_repr(self) -> str:
        options = {name: getattr(self, name) for name in self._options}
        return ", ".join(
            f"{name}={value!r}"
            for name, value in options.items()
            if value is not None and value is not False and not isinstance(value, Tensor)
        )


class SmoothSVMLoss(_Loss):
    """Smooth top-k SVM loss; see :func:`triton_topk.smooth_svm` for the arguments."""

    def __init__(
        self,
        k: int = 5,
        tau: float = 1.0,
        margin: float | Tensor = 1.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        gradient: str = "exact",
        order: int | None = None,
        backend: str | None = None,
        return_topk_hits: bool = False,
    ) -> None:
        super().__init__(
            functional.smooth_svm,
            weight,
            k=k,
            tau=tau,
            margin=margin,
            ignore_index=ignore_index,
            reduction=reduction,
            gradient=gradient,
            order=order,
            backend=backend,
            return_topk_hits=return_topk_hits,
        )


class HardSVMLoss(_Loss):
    """Top-k hinge loss; see :func:`triton_topk.hard_svm` for the arguments."""

    def __init__(
        self,
        k: int = 5,
        margin: float | Tensor = 1.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str | None = None,
        return_topk_hits: bool = False,
    ) -> None:
        super().__init__(
            functional.hard_svm,
            weight,
            k=k,
            margin=margin,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
            return_topk_hits=return_topk_hits,
        )


class LqLoss(_Loss):
    """Generalised cross-entropy; see :func:`triton_topk.lq_loss` for the arguments."""

    def __init__(
        self,
        q: float = 0.7,
        truncation: float | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str | None = None,
        return_topk_hits: bool = False,
        k: int = 5,
    ) -> None:
        super().__init__(
            functional.lq_loss,
            weight,
            q=q,
            truncation=truncation,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
            return_topk_hits=return_topk_hits,
            k=k,
        )


class SmoothSVMLqLoss(_Loss):
    """Smooth top-k SVM and Lq in one pass; see :func:`triton_topk.smooth_svm_lq` for the arguments."""

    def __init__(
        self,
        k: int = 5,
        q: float = 0.7,
        mix: float = 0.5,
        tau: float = 1.0,
        margin: float | Tensor = 1.0,
        truncation: float | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        gradient: str = "exact",
        backend: str | None = None,
        return_topk_hits: bool = False,
    ) -> None:
        super().__init__(
            functional.smooth_svm_lq,
            weight,
            k=k,
            q=q,
            mix=mix,
            tau=tau,
            margin=margin,
            truncation=truncation,
            ignore_index=ignore_index,
            reduction=reduction,
            gradient=gradient,
            backend=backend,
            return_topk_hits=return_topk_hits,
        )

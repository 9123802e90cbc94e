"""The losses that are checked and timed are public functions with some of their options."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

import triton_topk
from triton_topk import reference
from triton_topk.arguments import Backend
from triton_topk.check.rows import CLASSES

KS = (1, 5, 20)  # 20: more than the kernels of a GPU take
_Q = 0.7


class Loss:
    """A loss is a public function, which is looked up when it is called, and its options."""

    def __init__(self, function: str, **options: Any) -> None:
        self.function = function
        self.options = options

    def __call__(self, scores: Tensor, labels: Tensor, **options: Any) -> Tensor:
        loss: Tensor = getattr(triton_topk, self.function)(
            scores, labels, **self.options, **options
        )
        return loss

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.function}({options})"

    @property
    def k(self) -> int:
        """Return the k that rows of scores may be hard for."""
        k: int = self.options.get("k", 5)
        return k

    @property
    def approximation(self) -> float:
        """Return the error of the gradient that is promised instead of rounding."""
        if self.options.get("gradient") != "taylor":
            return 0.0
        return 3e-3 if self.k <= 5 else 2e-2

    def backend(self, device: torch.device) -> tuple[str, list[str]]:
        """Return the backend that computes the loss on the device, and why those before it do not."""
        scores = torch.zeros(1, CLASSES, device=device, requires_grad=True)
        labels = torch.zeros(1, dtype=torch.int64, device=device)
        obstacles = []
        *others, last = get_args(Backend)
        for name in others:
            try:
                self(scores, labels, reduction="sum", backend=name)
            except ValueError as error:
                obstacles.append(f"{name} {str(error).removeprefix(f'backend={name!r} ')}")
            else:
                return name, obstacles
        return last, obstacles

    def truth(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each row by its definition; differentiable."""
        options = {name: x for name, x in self.options.items() if name != "gradient"}
        losses: Tensor = getattr(reference, self.function)(scores, labels, **options)
        return losses


def losses(*ks: int) -> list[Loss]:
    return [
        *(Loss("hard_svm", k=k) for k in ks),
        *(Loss("smooth_svm", k=k) for k in ks),
        *(Loss("smooth_svm", k=k, gradient="taylor") for k in ks),
        Loss("lq_loss", q=_Q),
        Loss("lq_loss", q=_Q, truncation=0.05),
        *(Loss("smooth_svm_lq", k=k, q=_Q) for k in ks),
    ]

"""What is checked and timed: public functions with some of their options, and what they should be."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import triton_topk
from triton_topk import reference
from triton_topk.check.rows import CLASSES

KS = (1, 5, 20)  # 20: more than the kernels take
_Q = 0.7


class Loss:
    """A public function, which is looked up when it is called, and its options."""

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
        """What rows of scores may be hard for."""
        k: int = self.options.get("k", 5)
        return k

    @property
    def approximation(self) -> float:
        """The error of the gradient that is promised instead of rounding."""
        if self.options.get("gradient") != "taylor":
            return 0.0
        return 3e-3 if self.k <= 5 else 2e-2

    def obstacle(self, device: torch.device) -> str | None:
        """Why its backend there is not the fused one."""
        scores = torch.zeros(1, CLASSES, device=device, requires_grad=True)
        labels = torch.zeros(1, dtype=torch.int64, device=device)
        try:
            self(scores, labels, reduction="sum", backend="triton")
        except ValueError as error:
            return str(error).removeprefix("backend='triton' ")
        return None

    def truth(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of each row by its definition; differentiable."""
        smooth_svm = partial(reference.smooth_svm, scores, labels, self.k)
        lq_loss = partial(
            reference.lq_loss, scores, labels, _Q, truncation=self.options.get("truncation")
        )
        match self.function:
            case "hard_svm":
                return reference.hard_svm(scores, labels, self.k)
            case "smooth_svm":
                return smooth_svm()
            case "lq_loss":
                return lq_loss()
            case "smooth_svm_lq":
                return (smooth_svm() + lq_loss()) / 2
        raise ValueError(f"no definition of {self.function}")


def losses(*ks: int) -> list[Loss]:
    return [
        *(Loss("hard_svm", k=k) for k in ks),
        *(Loss("smooth_svm", k=k) for k in ks),
        *(Loss("smooth_svm", k=k, gradient="taylor") for k in ks),
        Loss("lq_loss", q=_Q),
        Loss("lq_loss", q=_Q, truncation=0.05),
        *(Loss("smooth_svm_lq", k=k, q=_Q) for k in ks),
    ]

"""Layers whose losses are computed with the layer fused in, and without."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from losses import Loss, random_labels, random_scores
from torch import Tensor

import triton_topk

N, D, C = 13, 6, 11


class Layer:
    """An input (N, D), a weight (C, D), a bias (C,) and labels, one of which is ignored."""

    def __init__(
        self, n: int = N, d: int = D, c: int = C, dtype: torch.dtype = torch.float64
    ) -> None:
        self.input = random_scores(n, d, seed=1, dtype=dtype).requires_grad_()
        self.weight = random_scores(c, d, seed=2, dtype=dtype).requires_grad_()
        self.bias = random_scores(c, seed=3, dtype=dtype).requires_grad_()
        self.labels = random_labels(n, n=c)
        self.labels[2:3] = -100

    @property
    def tensors(self) -> list[Tensor]:
        return [self.input, self.weight, self.bias]

    def fused(self, loss: Loss, *tensors: Tensor, **options: Any) -> Any:
        """The loss of this layer, or of others of its tensors."""
        x, weight, bias = tensors or self.tensors
        function = getattr(triton_topk, f"linear_{loss.name}")
        return function(x, weight, self.labels, linear_bias=bias, **loss.options, **options)

    def unfused(self, loss: Loss, *tensors: Tensor, **options: Any) -> Any:
        return loss(F.linear(*(tensors or self.tensors)), self.labels, **options)

    def gradients(self, found: Tensor, upstream: Tensor | float = 1.0, **options: Any) -> Any:
        upstream = torch.as_tensor(upstream, dtype=found.dtype, device=found.device).expand_as(
            found
        )
        return torch.autograd.grad(found, self.tensors, upstream, **options)

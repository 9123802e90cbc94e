"""The modules of the losses have a base class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from triton_topk import functional
from triton_topk.arguments import Backend, Reduction, Weight, as_int, shown
from triton_topk.batch import check_constants
from triton_topk.functional import TopkHits
from triton_topk.keywords import explained
from triton_topk.losses import Loss
from triton_topk.shard import ClassShard, check_shard


class LossModule(torch.nn.Module):
    """A module is a function of scores and labels with fixed options, which are attributes.

    `weight` is a buffer: it follows `.to()` and is in the `state_dict`, as in
    `torch.nn.CrossEntropyLoss`; and so is a margin that is a tensor.
    """

    weight: Tensor | None
    ignore_index: int
    reduction: Reduction
    backend: Backend | None
    shard: ClassShard | None

    def __init__(
        self, loss: type[Loss], weight: Tensor | None, shard: ClassShard | None, **options: Any
    ) -> None:
        """The arguments are described with the class.  All of them are checked here, but for k < C."""
        super().__init__()
        check_shard(shard)
        margin = options.get("margin")
        check_constants(weight, margin)
        loss.checked(**options | ({"margin": 0.0} if isinstance(margin, Tensor) else {}))
        self._function = getattr(functional, loss.name)
        self._options = (*options, "weight", "shard")
        self.shard = shard
        self.register_buffer("weight", weight)
        for name, value in options.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        """An option is a buffer as long as it is a tensor, and an int if it is an index."""
        if name in self.__dict__.get("_options", ()):
            value = as_int(value)
            if isinstance(value, Tensor) and name not in self._buffers:
                self.__dict__.pop(name, None)
                self.register_buffer(name, value)
            elif value is not None and not isinstance(value, Tensor):
                self._buffers.pop(name, None)
                self._parameters.pop(name, None)
        super().__setattr__(name, value)

    @explained
    def forward(
        self,
        scores: Tensor,
        labels: Tensor,
        *,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
    ) -> Tensor | tuple[Tensor, TopkHits]:
        """Compute the loss of scores (N, C, ...) for labels (N, ...), and the hits with `return_topk_hits`.

        Args:
            scores: (C,), (N, C) or (N, C, d1, ...), any strides; float16, bfloat16, float32 or float64.
            labels: class indices in [0, C) or `ignore_index`, of any integer dtype; (), (N,) or (N, d1, ...).
            weight: in the shape of the scores with 1 in place of C, a factor for the loss of each sample of this call,
                beside the module's weight of each class; of any floating-point dtype.
            normalizer: a number > 0, or a tensor with one element: the sum of the losses is divided by it, whether
                `reduction` is "mean" or "sum".
        """
        loss: Tensor | tuple[Tensor, TopkHits] = self._loss(scores, labels, weight, normalizer)
        return loss

    def _loss(
        self,
        scores: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        normalizer: float | Tensor | None,
        /,
        **changed: Any,
    ) -> Any:
        """Call the function with the options, but for those that are changed."""
        options = {name: getattr(self, name) for name in self._options}
        given = options | {"weight": self._weights(weight), "normalizer": normalizer} | changed
        return self._function(scores, labels, **given)

    def _weights(self, weight: Tensor | None) -> Weight:
        """Return the module's weight of each class and the call's of each sample."""
        if isinstance(weight, tuple):
            raise TypeError(
                "weight must be a Tensor with a weight per sample, got tuple; a weight for each class is given to "
                "the constructor"
            )
        return self.weight, weight

    def extra_repr(self) -> str:
        options = {name: getattr(self, name) for name in self._options}
        return ", ".join(
            f"{name}={shown(value)}"
            for name, value in options.items()
            if value is not None and value is not False
        )

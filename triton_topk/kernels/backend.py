"""The fused kernels are a backend.  Triton, which takes a while to import and is not everywhere, is imported late."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM

if TYPE_CHECKING:
    from triton_topk.backends import Run

FUSED_MAX_K = 16
FUSED_MAX_DEGREE = 20
# The losses that have a kernel: k and order of what it keeps of a row, which limit it, or None.
_SIZES: dict[type[Loss], Callable[[Any], tuple[int, int | None]] | None] = {
    SmoothSVM: lambda loss: (loss.k, loss.order),
    HardSVM: lambda loss: (loss.k, None),
    Lq: None,
    Mixture: lambda loss: (loss.k, loss.order),
}


class Triton:
    name = "triton"

    @property
    def run(self) -> Run:
        return kernels().run

    @property
    def scale_(self) -> Callable[[Tensor, Tensor], None]:
        return kernels().scale_

    def obstacle_to_tensor(self, tensor: Tensor) -> str | None:
        if not (tensor.is_cuda or _interpreting()):
            return (
                "needs scores on a GPU, or TRITON_INTERPRET=1 in the environment, "
                f"got scores on {tensor.device}"
            )
        if not _has_triton():
            return "needs the package triton, which is not installed"
        return None

    def obstacle(self, batch: Batch, loss: Loss) -> str | None:
        scores = batch.scores
        return self.obstacle_to_tensor(scores) or _obstacle_to_loss(
            loss, scores.shape[1], scores.dtype
        )


@cache
def kernels() -> ModuleType:
    from triton_topk.kernels import launch

    return launch


@cache
def _interpreting() -> bool:
    # Triton, too, looks once.
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=1024)
def _obstacle_to_loss(loss: Loss, n: int, dtype: torch.dtype) -> str | None:
    """Return why the kernel cannot compute this loss of n scores of the dtype, or None."""
    if type(loss) not in _SIZES:
        return f"has no kernel for {loss.name}"
    size = _SIZES[type(loss)]
    if size is None:
        return None
    k, order = size(loss)
    degree = k if order is None else k + order - 1
    if k > FUSED_MAX_K or degree > FUSED_MAX_DEGREE:
        return (
            f"supports k <= {FUSED_MAX_K} and k + order - 1 <= {FUSED_MAX_DEGREE}, "
            f"got k={k}, order={order}"
        )
    if not kernels().in_range(loss, n, dtype):
        return f"cannot hold C={n} classes for k={k}"
    return None

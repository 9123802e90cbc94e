"""The fused kernels are a backend.  Triton, which takes a while to import and is not everywhere, is imported late."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from types import ModuleType

from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.losses import Loss


class Triton:
    name = "triton"
    # a program may read scores of a row whose gradient another one has written
    in_place = False

    def run(self, batch: Batch, loss: Loss, **tensors: Tensor | None) -> None:
        kernels().run(batch, loss, **tensors)

    def summarize(self, batch: Batch, loss: Loss) -> None:
        kernels().summarize(batch, loss)

    def scale_(self, gradient: Tensor, factor: Tensor) -> None:
        kernels().scale_(gradient, factor)

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
        return self.obstacle_to_tensor(scores) or kernels().obstacle(
            loss, scores.shape[1], scores.dtype, batch.summary is not None
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

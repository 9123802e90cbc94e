"""The fused kernels are a backend.  Triton, which takes a while to import and is not everywhere, is imported late."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.losses import Loss

if TYPE_CHECKING:
    from triton_topk.backends import Run


class Triton:
    name = "triton"
    # a program may read scores of a row whose gradient another one has written
    in_place = False

    @property
    def run(self) -> Run:
        return kernels().run

    @property
    def summarize(self) -> Callable[[Batch, Loss], None]:
        return kernels().summarize

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

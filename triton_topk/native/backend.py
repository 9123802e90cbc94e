"""The native backend computes the losses on a CPU, compiled by numba, which is optional and imported late."""

from __future__ import annotations

import importlib
import platform
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.losses import Loss


class Native:
    name = "native"
    in_place = True

    def run(self, batch: Batch, loss: Loss, **tensors: Tensor | None) -> None:
        _launch().run(batch, loss, **tensors)

    def summarize(self, batch: Batch, loss: Loss) -> None:
        _launch().summarize(batch, loss)

    def scale_(self, gradient: Tensor, factor: Tensor) -> None:
        gradient.mul_(factor)

    def obstacle_to_tensor(self, tensor: Tensor) -> str | None:
        if not tensor.is_cpu:
            return f"needs scores on a CPU, got scores on {tensor.device}"
        return _obstacle_to_numba() or _obstacle_to_dtype(tensor.dtype)

    def obstacle(self, batch: Batch, loss: Loss) -> str | None:
        scores = batch.scores
        return self.obstacle_to_tensor(scores) or _launch().obstacle(loss, scores.shape[1])


@cache
def _launch() -> ModuleType:
    from triton_topk.native import launch

    return launch


@cache
def _obstacle_to_numba() -> str | None:
    try:
        numba = importlib.import_module("numba")
    except ImportError as error:
        return f"needs numba (pip install numba), which cannot be imported: {error}"
    return "needs numba's compiler, got NUMBA_DISABLE_JIT=1" if numba.config.DISABLE_JIT else None


@cache
def _obstacle_to_dtype(dtype: torch.dtype) -> str | None:
    if dtype != torch.float16 or platform.machine().lower() in ("aarch64", "arm64"):
        return None
    # else the compiler would call a function that it does not find, and end the process
    target = importlib.import_module("numba.core.registry").cpu_target.target_context
    _, _, features = target.codegen().magic_tuple()
    if "+f16c" in features.split(","):
        return None
    return "needs a processor that converts float16, and numba to compile for it"

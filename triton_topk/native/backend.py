"""The native backend computes the losses on a CPU, compiled by numba, which is optional and imported late."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from triton_topk.batch import Batch
from triton_topk.losses import Loss

if TYPE_CHECKING:
    from triton_topk.backends import Run


class Native:
    name = "native"
    in_place = True

    @property
    def run(self) -> Run:
        run: Run = _launch().run
        return run

    @property
    def summarize(self) -> Callable[[Batch, Loss], None]:
        summarize: Callable[[Batch, Loss], None] = _launch().summarize
        return summarize

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

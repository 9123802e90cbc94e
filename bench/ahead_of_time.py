"""The kernels that the launch code makes of a case are compiled for a GPU that need not be there.

The launch function itself runs, on CPU tensors and with a driver that knows nothing but its target: the
signature, the specialisation of the arguments and the constants are those of a real launch.  Its Triton can launch
nothing, so that it compiles in processes of its own.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.kernels import config as table
from triton_topk.kernels import launch
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM
from triton_topk.summary import numbers

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
# of a batch: a multiple of every alignment and of the rows of any program; 1 Triton would compile in
_ROWS = 32


@dataclass(frozen=True)
class Case:
    n: int
    k: int | None
    dtype: torch.dtype
    order: int | None = None
    gradient: bool = True
    aligned: bool = True
    loss: str = "smooth_svm"
    hits: bool = False  # the top-k hits too, with a margin for each class
    shards: int = 1  # of all classes, n each

    def __str__(self) -> str:
        parts = {
            f"{self.loss}-n{self.n}": True,
            f"k{self.k}": self.k is not None,
            str(self.dtype).removeprefix("torch."): True,
            f"order{self.order}": self.order is not None,
            "forward": not self.gradient,
            "unaligned": not self.aligned,
            "hits": self.hits,
            f"shards{self.shards}": self.shards > 1,
        }
        return "-".join(part for part, said in parts.items() if said)

    @property
    def parameters(self) -> Loss:
        k, hits = self.k or 5, (self.k or 5) if self.hits else None
        of = {
            "smooth_svm": SmoothSVM(k, 0.5, 1.5, self.order, hits=hits),
            "hard_svm": HardSVM(k, 1.5, hits=hits),
            "lq_loss": Lq(0.7, hits=hits),
            "smooth_svm_lq": Mixture(k, 0.5, 1.5, self.order, 0.7, None, 0.3, hits=hits),
        }
        return of[self.loss]


def names(case: Case, architecture: str) -> list[str]:
    """The launches have names.  A row too long for one program takes two: the first makes summaries of its parts.

    Then a shard makes another, of a row's summary, and a launch begins with that of all shards.
    """
    name = f"{architecture}-{case}"
    in_parts = _config(case, architecture).parts > 1
    if case.shards > 1:
        return [f"{name}-summaries"] * in_parts + [f"{name}-summary", f"{name}-merged"]
    return [f"{name}-summaries", f"{name}-finish"] if in_parts else [name]


def compile_case(case: Case, architecture: str) -> dict[str, Any]:
    """Triton compiles each launch for "sm_90" and the like, or "gfx942"; the results are by the launches' names."""
    target = GPUTarget("hip", architecture, 64)
    if is_nvidia(architecture):
        target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    compiled = compile_only(case, _config(case, architecture), target)
    return dict(zip(names(case, architecture), compiled, strict=True))


def is_nvidia(architecture: str) -> bool:
    return architecture.startswith("sm_")


def _config(case: Case, architecture: str) -> table.Config:
    config = launch.choose(case.parameters, case.n, case.dtype, case.shards > 1)
    return config if is_nvidia(architecture) else table.for_waves_of_64(config)


class Driver:
    """It does as much of a driver of Triton's as compiling needs."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> str:
        return str(self._target.arch)  # a key of the kernel's cache

    def get_current_stream(self, device: str) -> int:
        return 0


class Recorder:
    """It stands for a kernel in the launch code: compiles, keeps the results, launches nothing."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.compiled: list[Any] = []  # Triton's, one for each launch

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return partial(self.run, grid=grid)

    def run(self, *args: Any, grid: tuple[int, ...], **kwargs: Any) -> None:
        self.compiled.append(self.kernel.run(*args, grid=grid, warmup=True, **kwargs))


def compile_only(case: Case, config: table.Config, target: GPUTarget) -> list[Any]:
    """Compile what the launch code would launch."""
    driver.set_active(Driver(target))
    scores = torch.zeros(_ROWS, case.n + (0 if case.aligned else 1), dtype=case.dtype)[:, : case.n]
    labels = torch.zeros(_ROWS, dtype=torch.int64)
    losses = torch.zeros(_ROWS, dtype=accumulation_dtype(case.dtype))
    given, found = {}, {"losses": losses}
    if case.gradient:
        given["normalizer"] = losses.new_zeros(())
        found["gradient"] = scores.new_zeros(scores.shape)
    if case.hits:
        given["margins"] = torch.zeros(_ROWS, 1).expand(-1, case.n + (case.shards > 1))
        found["hits"] = torch.zeros(_ROWS, 2, dtype=torch.bool)
    recorder = Recorder(launch.loss_kernel)
    batch, loss = Batch(scores, labels, **given), case.parameters
    with patch.object(launch, "loss_kernel", recorder):
        if case.shards > 1:
            summary = torch.zeros(numbers(loss.form), _ROWS, dtype=F64)
            batch = batch._replace(summary=summary)
            launch.summarize(batch, loss, config=config)
        launch.run(batch, loss, **found, config=config)
    return recorder.compiled

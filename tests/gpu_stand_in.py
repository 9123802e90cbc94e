"""A CPU in place of a GPU: what is wrong with the Python of a command for a GPU shows before there is one.

    python -m tests.gpu_stand_in python3 -m MODULE ARGUMENT...

This runs the command, of bench/ or of pytest, on tiny sizes, without the profiler that may stand before it; so does
`bash bench/on_gpu.sh --dry-run` with all of its own.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch.overrides import TorchFunctionMode

# Functions import what imports Triton, which looks then whether it is to interpret or to compile.


class OnCpu(TorchFunctionMode):
    """Tensors that are meant for a GPU are on the CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not torch.device:  # which keeps its name
            args = [_on_cpu(x) for x in args]
        return func(*args, **{name: _on_cpu(x) for name, x in (kwargs or {}).items()})


def _on_cpu(x: Any) -> Any:
    return "cpu" if isinstance(x, str | torch.device) and str(x).startswith("cuda") else x


class Generator(torch.Generator):
    """Its device is the CPU."""

    def __new__(cls, device: object = None) -> Generator:
        return super().__new__(cls)


class Event:
    """Its time is the host's."""

    def __init__(self, enable_timing: bool) -> None:
        self.seconds = 0.0

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """A CPU has done everything by now."""

    def elapsed_time(self, later: Event) -> float:
        return (later.seconds - self.seconds) * 1e3


def _replay(graph: Any) -> None:
    """The steps run again.  Their results go where the first ones are, as those of a CUDA graph."""
    for kept, found in zip(graph.results, [step() for step in graph._steps], strict=True):
        for old, new in zip(kept, found, strict=True):
            if old is not None:
                old.data.copy_(new.detach())


def _run(*args: Any, config: object = None, **tensors: Any) -> None:
    """The eager backend stands for the kernels, with any launch configuration."""
    from triton_topk import eager

    eager.run(*args, **tensors)


def once(call: Callable[[], Any], return_mode: str) -> float:
    """Return the milliseconds of a call, in place of Triton's benchmark."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Give torch.cuda what the benchmark needs of it."""
    from bench import timing
    from triton_topk import eager
    from triton_topk.kernels import launch

    mocked = ("CUDAGraph", "Stream", "current_stream", "graph", "graph_pool_handle", "stream")
    for name in (*mocked, "reset_peak_memory_stats", "synchronize", "_sleep"):
        patch.setattr(torch.cuda, name, MagicMock())
    properties = SimpleNamespace(L2_cache_size=2**12)
    patch.setattr(torch.cuda, "get_device_name", lambda device: "no GPU")
    patch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "Event", Event)
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(timing.Graph, "replay", _replay)
    patch.setattr(launch, "run", _run)
    patch.setattr(launch, "summarize", eager.summarize)


def _shrink(patch: pytest.MonkeyPatch) -> None:
    """Make a command one of seconds: few rows, one configuration of a case, hardly a repetition.

    The smoke run keeps the kernels, in Triton's interpreter: what it wants to be equal is not with the eager backend.
    """
    from bench import cells, conftest, device, linear, rounds, test_losses, timing
    from bench.sweep import __main__ as sweep
    from bench.sweep import times
    from tests import smoke
    from tests.interpreter import speed_up
    from triton_topk.kernels import launch

    speed_up(patch)
    plan = replace(cells.TINY, n=(32, 1000), n_of_k=(1000,), n_of_batch=1000)
    bfloat16 = [case for case in smoke.STRUCTURES if "svm-n1000-k5-bfloat16" in str(case)]
    # the interpreter cuts bfloat16 off where a GPU rounds, so that others of it are beyond the bound
    structures = [case for case in smoke.STRUCTURES if case.n < 1000 and case.dtype.itemsize > 2]
    structures += bfloat16
    faults, compile_all, variants = smoke.faults, sweep.compile_all, sweep.variants
    of_layers = linear.measure
    for module, name, small in (
        (conftest, "GPU", plan),
        (device, "_SCORES", 2**10),
        (linear, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1)),
        (linear, "measure", lambda shape, dtype, *_: of_layers("16,8,32", dtype, "cpu", 1)),
        (rounds, "TRIES", 1),
        (rounds, "_ROUNDS", 2),
        (rounds, "_SECONDS", 0.0),
        (smoke, "STRUCTURES", structures),
        (smoke, "faults", lambda case, repeats, device: faults(case, min(1, repeats), device)),
        (smoke, "launch", SimpleNamespace(run=launch.run, summarize=launch.summarize)),
        (sweep, "compile_all", lambda jobs, number: compile_all(jobs[:1], number)),
        (sweep, "variants", lambda case: variants(case)[:1]),
        (test_losses, "_EAGER_CALLS", 1),
        (timing, "_FEWEST_STEPS", 1),
        (times, "_SCORES", 2**17),
        (times, "do_bench", once),
        (torch, "compile", lambda function, **options: function),
    ):
        patch.setattr(module, name, small)


def main() -> object:
    tool, command = sys.argv[1], sys.argv.index("python3")
    if tool != "python3":
        print(tool, "needs a GPU: what it would watch runs without it.", flush=True)  # noqa: T201
    del sys.argv[: command + 2]  # and -m
    os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, in the interpreter
    patch = pytest.MonkeyPatch()
    _shrink(patch)
    stand_in(patch)
    name = "bench.sweep.__main__" if sys.argv[0] == "bench.sweep" else sys.argv[0]
    with OnCpu():
        return importlib.import_module(name).main()


if __name__ == "__main__":
    sys.exit(main())

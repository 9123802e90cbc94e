"""What the launch code makes of a case, compiled for a GPU that need not be there.

The launch function itself runs, on CPU tensors and with a driver that knows nothing but its target: the
signature, the specialisation of the arguments and the constants are those of a real launch.  To be
imported in a process of its own, without TRITON_INTERPRET: its Triton can launch nothing.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from triton_topk.kernels import config as table
from triton_topk.kernels import launch
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM, SmoothSVMLq

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    n: int
    k: int
    dtype: torch.dtype
    order: int | None = None
    gradient: bool = True
    aligned: bool = True
    loss: str = "smooth_svm"

    def __str__(self) -> str:
        parts = [] if self.loss == "smooth_svm" else [self.loss]
        parts += [f"n{self.n}", f"k{self.k}", str(self.dtype).removeprefix("torch.")]
        if self.order is not None:
            parts.append(f"order{self.order}")
        if not self.gradient:
            parts.append("forward")
        if not self.aligned:
            parts.append("unaligned")
        return "-".join(parts)

    @property
    def parameters(self) -> Loss:
        if self.loss == "lq_loss":
            return Lq(0.7, None, -100, None)
        if self.loss == "hard_svm":
            return HardSVM(self.k, 1.5, -100, None)
        if self.loss == "smooth_svm_lq":
            return SmoothSVMLq(self.k, 0.5, 1.5, self.order, 0.7, None, 0.3, -100, None)
        return SmoothSVM(self.k, 0.5, 1.5, self.order, -100, None)


@dataclass(frozen=True)
class Code:
    """What the machine code of a kernel uses."""

    config: table.Config
    registers: int
    stack_bytes: int
    spills: int
    instructions: int
    opcodes: Counter[str]

    @property
    def instructions_per_score(self) -> float:
        """Per score of a lane, the unused part of the last block included."""
        config = self.config
        return self.instructions * 32 * config.warps / (config.rows * config.lanes * config.blocks)


def compile_case(case: Case, architecture: str) -> Code:
    """Compile for "sm_90" and the like, or "gfx942"."""
    config = launch.choose(case.parameters, case.n, case.dtype)
    if architecture.startswith("sm_"):
        compiled = _compile(case, config, GPUTarget("cuda", int(architecture[3:]), 32))
        return _nvidia(compiled.asm["cubin"], config)
    config = table.for_waves_of_64(config)
    compiled = _compile(case, config, GPUTarget("hip", architecture, 64))
    return _amd(compiled.asm["amdgcn"], config)


class _Driver:
    """As much of Triton's driver as compiling needs."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> str:
        return str(self._target.arch)  # a key of the kernel's cache

    def get_current_stream(self, device: str) -> int:
        return 0


class _Recorder:
    """Stands for a kernel in the launch code: compiles, keeps the result, launches nothing."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.compiled: Any = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return partial(self.run, grid=grid)

    def run(self, *args: Any, **kwargs: Any) -> None:
        self.compiled = self.kernel.run(*args, warmup=True, **kwargs)


def _compile(case: Case, config: table.Config, target: GPUTarget) -> Any:
    kernel = launch.loss_kernel
    recorder = _Recorder(kernel)
    # 32 rows: a multiple of every alignment, and no argument is 1, which Triton would compile in
    scores = torch.zeros(32, case.n + (0 if case.aligned else 1), dtype=case.dtype)[:, : case.n]
    dtype = torch.float64 if case.dtype == torch.float64 else torch.float32
    gradient = torch.zeros(32, case.n, dtype=case.dtype) if case.gradient else None
    launch.loss_kernel = recorder
    driver.set_active(_Driver(target))
    try:
        launch.run(
            scores,
            torch.zeros(32, dtype=torch.int64),
            case.parameters,
            normalizer=torch.zeros((), dtype=dtype) if case.gradient else None,
            losses=torch.zeros(32, dtype=dtype),
            gradient=gradient,
            config=config,
        )
    finally:
        launch.loss_kernel = kernel
    return recorder.compiled


def _nvidia(cubin: bytes, config: table.Config) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _output("cuobjdump", "-res-usage", file.name)
        sass = _output("nvdisasm", "-c", file.name)
    opcodes = Counter(_OPCODE.findall(sass))
    # after the last instruction, the padding: a branch to itself and NOPs
    useful = {name: count for name, count in opcodes.items() if name not in ("NOP", "BRA")}
    return Code(
        config,
        registers=_number(r"REG:(\d+)", usage),
        stack_bytes=_number(r"STACK:(\d+)", usage),
        spills=sum(count for name, count in opcodes.items() if name.startswith(("LDL", "STL"))),
        instructions=sum(useful.values()),
        opcodes=opcodes,
    )


def _amd(assembly: str, config: table.Config) -> Code:
    opcodes = Counter(re.findall(r"^\t([a-z]\w+)", assembly, re.MULTILINE))
    return Code(
        config,
        registers=_number(r"\.vgpr_count:\s*(\d+)", assembly),
        stack_bytes=_number(r"\.private_segment_fixed_size:\s*(\d+)", assembly),
        spills=_number(r"\.vgpr_spill_count:\s*(\d+)", assembly)
        + _number(r"\.sgpr_spill_count:\s*(\d+)", assembly),
        instructions=sum(opcodes.values()),
        opcodes=opcodes,
    )


def _output(tool: str, *args: str) -> str:
    return subprocess.run([_TOOLS / tool, *args], check=True, capture_output=True, text=True).stdout


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    assert match, f"no {pattern} in {text[:1000]}"
    return int(match[1])

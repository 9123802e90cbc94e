"""A kernel whose loops are known, compiled for GPUs that need not be there; for processes of their own."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench.machine_code.compiled import MachineCode, analyse

BLOCK = 256
WARPS = 2


@triton.jit
def _kernel(x, out, rows, n, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    for row in range(rows):
        total = tl.zeros([BLOCK], tl.float32)
        for offset in range(0, n, BLOCK):
            total += tl.exp2(tl.load(x + offset + lane))
        tl.store(out + row * BLOCK + lane, total)


def compiled(rows: int, n: int, architecture: str) -> MachineCode:
    """The code, run for this many rows of n numbers."""
    target = (
        GPUTarget("cuda", int(architecture[3:]), 32)
        if architecture.startswith("sm_")
        else GPUTarget("hip", architecture, 64)
    )
    source = ASTSource(
        _kernel,
        {"x": "*fp32", "out": "*fp32", "rows": "i32", "n": "i32", "BLOCK": "constexpr"},
        {(4,): BLOCK},
        {(0,): [["tt.divisibility", 16]], (1,): [["tt.divisibility", 16]]},
    )
    kernel = triton.compile(source, target=target, options={"num_warps": WARPS})
    return analyse(kernel, {"rows": rows, "n": n})

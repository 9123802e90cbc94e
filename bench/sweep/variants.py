"""A sweep is of these losses and rows, and tries these configurations for each."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from triton.backends.compiler import GPUTarget

from bench.ahead_of_time import BF16, F32, F64, Case, compile_only
from bench.processes import processes
from triton_topk.kernels import config as table
from triton_topk.kernels import constants, launch
from triton_topk.kernels.config import Config

_MOST_SCORES = 128  # of a lane; more would take minutes to compile
_REGISTERS = (80, 128, 255)

CASES = [
    *(Case(n, 5, dtype) for n in (1000, 4096, 32_768, 16_384, 128) for dtype in (F32, BF16)),
    *(Case(131_072, 5, dtype) for dtype in (F32, BF16)),
    *(Case(n, 5, F32) for n in (300, 512)),
    *(Case(n, 5, dtype) for n in (2000, 8192) for dtype in (F32, BF16)),
    *(Case(1000, k, F32) for k in (10, 16, 1, 2)),
    *(Case(n, 5, F32, loss="smooth_svm_lq") for n in (1000, 32_768, 131_072)),
    *(Case(n, 5, BF16, loss="smooth_svm_lq") for n in (1000, 32_768, 131_072)),
    *(
        Case(n, None, dtype, loss="lq_loss")
        for n in (1000, 32_768, 131_072)
        for dtype in (F32, BF16)
    ),
    *(Case(n, 5, F32, loss="hard_svm") for n in (1000, 32_768, 131_072)),
    Case(1000, 10, BF16),
    *(
        Case(n, 5, dtype)
        for n in (10, 21, 50, 100, 129, 257, 365, 500, 1001, 50_257, 2**20)
        for dtype in (F32, BF16)
    ),
    *(Case(n, 5, BF16) for n in (300, 512)),
    *(Case(100, None, dtype, loss="lq_loss") for dtype in (F32, BF16)),
    *(Case(131_072, k, F32) for k in (10, 16)),
    Case(1000, 5, F64),
]


def variants(case: Case) -> list[Config]:
    """Return the table's first; then what differs from it in one thing, or in a few that go together."""
    base = launch.choose(case.parameters, case.n, case.dtype)
    warps, parts = base.warps, base.parts
    layouts = [base, replace(base, stream=not base.stream)]
    if parts > 1:
        layouts += [
            replace(base, warps=each, parts=more * warps // each)
            for each in (2, 4, 8, 16)
            for more in (parts, 2 * parts)
        ]
    else:
        layouts += [
            replace(base, columns=int(base.columns * wider), warps=max(1, int(warps * more)))
            for wider, more in ((2, 1), (2, 2), (4, 4), (0.5, 0.5))
        ]
        layouts += [replace(each, vectors=3 - base.vectors) for each in (*layouts[:1], layouts[-1])]
        if case.n >= 16_384:
            layouts += [replace(base, parts=each, warps=warps // each) for each in (2, 4)]
    tried = [replace(each, registers=r) for each, r in product(layouts, _REGISTERS)]
    found = (table.laid_out(each, case.n, case.dtype) for each in tried)
    return list(dict.fromkeys([base, *(each for each in found if _is_kernel(case, each))]))


def _is_kernel(case: Case, config: Config) -> bool:
    """The result says whether there is such a kernel, which compiles in seconds."""
    scores = config.blocks * config.vectors * table.vector_of(case.n, case.dtype)
    fits = 32 * config.warps * (config.registers or 0) <= 65_536 and config.warps <= 16
    short = config.stream or scores <= _MOST_SCORES
    formula, _ = constants.formula(case.parameters, case.n, case.dtype)
    held = table.in_range(config, case.n, formula.top, formula.degree, case.dtype)
    return fits and short and held


def text(c: Config) -> str:
    """Write rows x columns x vectors x blocks, kept in registers or streamed; warps, registers, parts."""
    kind = "s" if c.stream else "r"
    return f"{c.rows}x{c.columns}x{c.vectors}x{c.blocks}{kind} w{c.warps} r{c.registers} p{c.parts}"


def compile_all(jobs: Sequence[tuple[Case, Config]], number: int) -> None:
    """Fill Triton's cache for a GPU that need not be there, and print a line for each job as it is done."""
    print(len(jobs), "configurations", flush=True)
    with processes(number) as pool:
        for line in pool.map(_compile, jobs):
            print(line, flush=True)


def _compile(job: tuple[Case, Config]) -> str:
    start = time.perf_counter()
    try:
        compile_only(*job, GPUTarget("cuda", 90, 32))
    except Exception as error:  # more registers than there are, say: it is no configuration, then
        return f"{job}: {type(error).__name__}: {error}"
    return f"{job[0]} {text(job[1])} {time.perf_counter() - start:.0f} s"

"""Filling Triton's cache for a GPU that need not be there, in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from triton.backends.compiler import GPUTarget

from bench.ahead_of_time import Case, compile_only
from bench.ledger.pool import processes
from bench.sweep.variants import text
from triton_topk.kernels.config import Config

Job = tuple[Case, Config]


def compile_all(jobs: Sequence[Job], number: int) -> None:
    """Print a line for each job as it is done, by this number of processes."""
    print(len(jobs), "configurations", flush=True)
    with processes(number) as pool:
        for line in pool.map(_compile, jobs):
            print(line, flush=True)


def _compile(job: Job) -> str:
    start = time.perf_counter()
    try:
        compile_only(*job, GPUTarget("cuda", 90, 32))
    except Exception as error:  # more registers than there are, say: it is no configuration, then
        return f"{job}: {type(error).__name__}: {error}"
    return f"{job[0]} {text(job[1])} {time.perf_counter() - start:.0f} s"

"""Compiling many cases, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.ahead_of_time import Case
    from bench.ledger.facts import Facts


@contextmanager
def processes(number: int = 2) -> Iterator[ProcessPoolExecutor]:
    """Processes where Triton compiles, even if it interprets in this one.  What has not begun at the end is left."""
    with ProcessPoolExecutor(
        min(number, os.cpu_count() or 1),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_compile_for_real,
    ) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@contextmanager
def compiling(
    jobs: Iterable[tuple[Case, str]],
) -> Iterator[dict[tuple[Case, str], Future[dict[str, Facts]]]]:
    """The facts of each launch of (case, architecture), by name, as they come."""
    with processes() as pool:
        # what takes longest first
        in_order = sorted(jobs, key=lambda job: (-(job[0].k or 0), str(job)))
        yield {job: pool.submit(_compile, *job) for job in in_order}


def _compile_for_real() -> None:
    """Before Triton is imported."""
    os.environ.pop("TRITON_INTERPRET", None)


def _compile(case: Case, architecture: str) -> dict[str, Facts]:
    from bench.ahead_of_time import compile_case
    from bench.ledger.facts import facts

    return {name: facts(x) for name, x in compile_case(case, architecture).items()}

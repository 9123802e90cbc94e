"""Compiling many cases, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
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


def compile_all(jobs: Iterable[tuple[Case, str]]) -> Iterator[dict[str, Facts]]:
    """The facts of the launches of each (case, architecture), by name; what takes longest comes first."""
    in_order = sorted(jobs, key=lambda job: (-(job[0].k or 0), str(job)))
    with processes() as pool:
        yield from pool.map(_compile, *zip(*in_order, strict=True))


def _compile_for_real() -> None:
    """Before Triton is imported."""
    os.environ.pop("TRITON_INTERPRET", None)


def _compile(case: Case, architecture: str) -> dict[str, Facts]:
    from bench.ahead_of_time import compile_case
    from bench.ledger.facts import facts

    return {name: facts(x) for name, x in compile_case(case, architecture).items()}

"""Triton compiles in processes of their own, even if it interprets in this one."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor


def processes(number: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    number = min(number, os.cpu_count() or 1)
    return ProcessPoolExecutor(number, mp_context=context, initializer=_compile_for_real)


def _compile_for_real() -> None:
    """Say so before Triton is imported."""
    os.environ.pop("TRITON_INTERPRET", None)

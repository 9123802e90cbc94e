"""Trainings in one process per core."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import TypeVar

import torch

Job, Result = TypeVar("Job"), TypeVar("Result")


def end_with_parent() -> None:
    """A killed command leaves no process behind."""
    parent_process().join()
    os._exit(1)


def start_worker() -> None:
    # The matrices are too small to share among threads: one process per core instead.
    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def in_processes(
    train: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None
) -> Iterator[tuple[Job, Result]]:
    """Each job with its result as it finishes; `workers` processes, by default one a core."""
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker) as pool:
        futures = {pool.submit(train, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)

"""All measurements, spread over the cores."""

from __future__ import annotations

import functools
import multiprocessing
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track

from bench.accuracy import suite
from bench.accuracy.errors import Measured, measure
from bench.accuracy.implementations import KERNELS, absent
from bench.accuracy.points import all_points


@dataclass(frozen=True)
class Results:
    seed: int
    absent: Mapping[str, str]
    measured: list[Measured]
    smooth: list[suite.SmoothRow]
    lq: list[suite.LqRow]


def run(seed: int) -> Results:
    # Triton looks once, when it is imported; the eager backend does not care.
    os.environ["TRITON_INTERPRET"] = "1"
    missing = absent()
    backends = ("eager",) if KERNELS in missing else ("eager", "triton")
    with ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker
    ) as pool:
        smooth = [pool.submit(suite.smooth, *x) for x in suite.SMOOTH_ROWS if x[0] in backends]
        lq = [pool.submit(suite.lq, *x) for x in suite.LQ_ROWS if x[0] in backends]
        longest_first = sorted(all_points(), key=lambda p: -p.n * p.k)
        at = functools.partial(measure, seed=seed, absent=frozenset(missing))
        points = [pool.submit(at, point) for point in longest_first]
        _wait([*smooth, *lq, *points])
    return Results(
        seed,
        missing,
        [m for future in points for m in future.result()],
        [future.result() for future in smooth],
        [future.result() for future in lq],
    )


def _wait(futures: list[Future[Any]]) -> None:
    for future in track(as_completed(futures), "Measuring", total=len(futures)):
        future.result()


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # of Triton's interpreter

"""Compile the kernels of a run on all cores: one at a time they would take longer than measuring them."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch

from bench.cells import Cell
from bench.implementations import IMPLEMENTATIONS
from bench.timing import Step, inputs

_MAX_PROCESSES = 16  # each holds a context on the device


def precompile(cells: list[Cell]) -> None:
    """Fill Triton's cache on disk."""
    ours = [cell for cell in cells if IMPLEMENTATIONS[cell.implementation].ours]
    # the same kernel for any batch, of which the smallest leaves memory to many processes
    each = {replace(cell, batch=1) for cell in ours}
    # torch.compile has another for each
    each |= {cell for cell in cells if cell.implementation == "F.cross_entropy compiled"}
    context = multiprocessing.get_context("spawn")
    n_processes = min(_MAX_PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(n_processes, mp_context=context) as pool:
        # the longest to compile first.  What fails here fails again, and is said, where it is measured.
        for cell in sorted(each, key=lambda cell: -cell.k):
            pool.submit(_run, cell)


def _run(cell: Cell) -> None:
    device = torch.device("cuda")
    scores, labels = inputs(cell, 0, device)
    Step(IMPLEMENTATIONS[cell.implementation].make(cell.n, cell.k, device), scores, labels)()
    torch.cuda.synchronize()

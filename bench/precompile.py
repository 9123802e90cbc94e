"""Compile the kernels of a run on all cores: one at a time they would take longer than measuring them."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import torch

from bench.implementations import IMPLEMENTATIONS
from bench.results import Cell
from bench.timing import Step, inputs

_PROCESSES = 8  # each holds a context on the device


def precompile(cells: list[Cell]) -> None:
    """Fill Triton's cache on disk."""
    ours = [cell for cell in cells if IMPLEMENTATIONS[cell.implementation].ours]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(_PROCESSES, os.cpu_count() or 1), mp_context=context) as pool:
        for _ in pool.map(_run, ours):
            pass


def _run(cell: Cell) -> None:
    device = torch.device("cuda")
    scores, labels = inputs(cell, 0, device)
    Step(IMPLEMENTATIONS[cell.implementation].make(cell.n, cell.k or 1, device), scores, labels)()
    torch.cuda.synchronize()

"""Each implementation of a task is compared with truth, for a wrong answer has no speed; then all are timed."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from bench.cells import BOTH, FORWARD, Cell, K
from bench.implementations import IMPLEMENTATIONS, Definition, Unavailable
from bench.processes import processes
from bench.rounds import Contestant, measure
from bench.timing import DeviceTimer, HostTimer, Step, inputs
from bench.truth import Truth, check_finite, extra_memory

_MEBIBYTE = 2**20
_MAX_PROCESSES = 16  # each holds a context on the device


Outcome = dict[str, Any] | str | Exception
"""A dict has what was measured: times (seconds of each call), share, steady, extra_memory.  A str says why a cell was
left out, an exception is how it failed."""


def precompile(cells: Sequence[Cell]) -> None:
    """The kernels of a run are compiled on all cores: one at a time they would take longer than measuring them."""
    # A kernel of ours is the same for any batch, of which the smallest leaves memory to many processes.
    each = {replace(cell, batch=1) for cell in cells if IMPLEMENTATIONS[cell.implementation].ours}
    each |= {cell for cell in cells if cell.implementation == "F.cross_entropy compiled"}
    with processes(_MAX_PROCESSES) as pool:
        # The longest is compiled first.  What fails here fails again, and is said, where it is measured.
        for cell in sorted(each, key=lambda cell: -cell.k):
            pool.submit(_run, cell)


def _run(cell: Cell) -> None:
    device = torch.device("cuda")
    loss = IMPLEMENTATIONS[cell.implementation].make(cell.n, cell.k, device)
    Step(loss, *inputs(cell, 0, device))()
    torch.cuda.synchronize()


def hold(cells: Sequence[Cell], seed: int, device: torch.device) -> dict[Cell, Outcome]:
    """The function measures cells of one task, and says what came of each."""
    timer = DeviceTimer(device) if device.type == "cuda" else HostTimer()
    outcomes: dict[Cell, Outcome] = {}
    ready: dict[Cell, tuple[Contestant, int | None]] = {}
    for cell in cells:
        try:
            ready[cell] = _checked(cell, timer, seed, device)
        except Exception as error:
            outcomes[cell] = _explained(cell, error)
    if not ready:
        return outcomes
    copied = inputs(replace(cells[0], work=FORWARD), seed, device)[0]
    if device.type == "cuda" and copied.nbytes > _MEBIBYTE:
        # Copies of other than whole mebibytes are slower by a fifth.
        copied = copied.new_empty(
            math.ceil(copied.nbytes / _MEBIBYTE) * _MEBIBYTE // copied.itemsize
        ).normal_()
    step = Step(lambda scores, labels: scores.clone(), copied, copied)
    copy = timer.contestant(step, copied.nbytes, check_finite, capturable=True)
    traffic = cells[0].traffic / (2 * copied.nbytes)
    contestants = [contestant for contestant, _ in ready.values()]
    timings = measure(contestants, copy, traffic, timer)
    for (cell, (_, memory)), timing in zip(ready.items(), timings, strict=True):
        found = {"times": timing.stats.data, "share": timing.share, "steady": timing.steady}
        outcomes[cell] = found | {"extra_memory": memory}
    return outcomes


def _checked(
    cell: Cell, timer: HostTimer | DeviceTimer, seed: int, device: torch.device
) -> tuple[Contestant, int | None]:
    implementation = IMPLEMENTATIONS[cell.implementation]
    loss = implementation.loss(cell.n, cell.k, cell.dtype, device)
    step = Step(loss, *inputs(cell, seed, device))
    check = check_finite
    if implementation.truth is not None:
        check = _truth(implementation.truth, replace(cell.task, work=BOTH), seed, device).check
    check(*step.on_a_copy()())
    # Recording allocations takes longer than all the rest where k is large.
    memory = extra_memory(step, device) if cell.work == BOTH and cell.k == K else None
    return timer.contestant(step, cell.traffic, check, implementation.capturable), memory


@lru_cache(maxsize=8)  # the definitions for one task
def _truth(losses: Definition, task: Cell, seed: int, device: torch.device) -> Truth:
    return Truth(losses, *inputs(task, seed, device), task.k)


def _explained(cell: Cell, error: Exception) -> str | Exception:
    """A peer's error is a result and says why it was left out; an error of ours is a failure."""
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if IMPLEMENTATIONS[cell.implementation].ours:
        return error
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

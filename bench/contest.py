"""The implementations of one task: each is compared with truth, for a wrong answer has no speed, then all are timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.cells import Plan
from bench.implementations import IMPLEMENTATIONS, Unavailable
from bench.machine import l2_bytes
from bench.memory import extra_memory
from bench.results import BOTH, FORWARD, Cell
from bench.rounds import Contestant, Stopwatch, TurnError, host_stopwatch, measure
from bench.timing import (
    DeviceStopwatch,
    Graph,
    Kernel,
    Step,
    cycled,
    flush,
    in_mebibytes,
    inputs,
    number_of_inputs,
)
from bench.truth import Truth, WrongError, check_finite
from triton_topk.check.waiting import waiting

_SHORTEST = 1e-3  # seconds of a call on a CPU, beside which those of the clock are nothing

T = TypeVar("T", Step, Kernel)

Check = Callable[[Tensor, Tensor | None], tuple[float | None, float | None]]
"""The errors of a loss and its gradient, or WrongError."""


@dataclass(frozen=True)
class Measured:
    times: list[float]
    said: dict[str, Any]  # the fields of a Measurement that are not made of the times


Outcome = Measured | str | Exception
"""A str says why a cell was left out; an exception is how it failed."""


class Contest:
    """It times the implementations on a CPU."""

    def __init__(self, sizes: Plan, seed: int, device: torch.device) -> None:
        self.stopwatch: Stopwatch = host_stopwatch
        self.waiting = waiting
        self._sizes, self._seed, self._device = sizes, seed, device

    def hold(self, cells: Sequence[Cell]) -> dict[Cell, Outcome]:
        """Measure cells of one task, and say what came of each."""
        outcomes: dict[Cell, Outcome] = {}
        contestants: dict[Cell, Contestant] = {}
        kernels: dict[Cell, Contestant] = {}
        said = {}
        for cell in cells:
            try:
                contestants[cell], kernel, said[cell] = self._checked(cell)
                if kernel is not None:
                    kernels[cell] = kernel
            except Exception as error:
                outcomes[cell] = _explained(cell, error)
        if contestants:
            task = cells[0].task
            copied = self._copied(task)
            traffic = task.traffic / (2 * copied.nbytes)
            copy = self._copy(task, copied)
        while contestants:
            everyone = [*contestants.items(), *kernels.items()]
            try:
                timings = measure(
                    [contestant for _, contestant in everyone],
                    copy,
                    traffic,
                    self.stopwatch,
                    self.waiting,
                )
            except TurnError as failed:
                if failed.whose is copy:
                    raise
                cell = next(cell for cell, contestant in everyone if contestant is failed.whose)
                outcomes[cell] = _explained(cell, failed.why)
                del contestants[cell]  # and the others begin again
                kernels.pop(cell, None)
                continue
            for cell, timing in zip(kernels, timings[len(contestants) :], strict=True):
                said[cell]["kernel"] = timing.stats.median
            for cell, timing in zip(contestants, timings[: len(contestants)], strict=True):
                said[cell] |= {
                    "share": timing.share,
                    "waited": timing.waited,
                    "copy_steady": timing.copy_steady,
                }
                outcomes[cell] = Measured(timing.stats.data, said[cell])
            break
        return outcomes

    def contestant(
        self, step: Step, cell: Cell, check: Check, capturable: bool
    ) -> tuple[Contestant, str]:
        """The step made ready to be timed, and the name of its clock."""
        count = math.ceil(_SHORTEST / self.stopwatch(step))
        return Contestant(_all([step] * count), count), "host"

    def kernel(self, step: Step, cell: Cell, check: Check) -> Contestant | None:
        """The kernel of the step alone, where there is one."""
        return None

    def _checked(self, cell: Cell) -> tuple[Contestant, Contestant | None, dict[str, Any]]:
        implementation = IMPLEMENTATIONS[cell.implementation]
        if why := implementation.why_not(cell.n, cell.dtype):
            raise Unavailable(why)
        loss = implementation.make(cell.n, cell.k, self._device)
        step = Step(loss, *inputs(cell, self._seed, self._device))
        check: Check = check_finite
        if implementation.truth is not None:
            shape = replace(cell.task, work=BOTH)
            check = _truth(implementation.truth, shape, self._seed, self._device).errors
        loss_error, gradient_error = check(*step.on_a_copy()())
        # Along n: where it is most of the work, recording allocations takes longer than all the rest.
        along_n = cell.work == BOTH and self._sizes.is_in_n(cell.n, cell.k, cell.batch)
        memory = extra_memory(step, self._device) if along_n else None
        contestant, clock = self.contestant(step, cell, check, implementation.capturable)
        kernel = self.kernel(step, cell, check) if implementation.ours else None
        return (
            contestant,
            kernel,
            {
                "clock": clock,
                "extra_memory": memory,
                "loss_error": loss_error,
                "gradient_error": gradient_error,
            },
        )

    def _copied(self, task: Cell) -> Tensor:
        """The scores of a task, whose copy takes turns with it."""
        return inputs(replace(task, work=FORWARD), self._seed, self._device)[0]

    def _copy(self, task: Cell, copied: Tensor) -> Contestant:
        step = Step(lambda copied, labels: copied.clone(), copied, copied)

        def check(copy: Tensor, gradient: Tensor | None) -> tuple[None, None]:
            if not torch.equal(copy, copied):
                raise WrongError("not a copy")
            return None, None

        check(*step())
        return self.contestant(step, replace(task, work=FORWARD), check, capturable=True)[0]


class GpuContest(Contest):
    """The time is the device's: of a CUDA graph of steps on inputs that are not in the cache, or, for implementations
    that synchronise with the host, of the same steps between two events."""

    def __init__(self, sizes: Plan, seed: int, device: torch.device) -> None:
        super().__init__(sizes, seed, device)
        self.stopwatch = DeviceStopwatch()
        self.waiting = lambda: 0.0
        self._cache = l2_bytes(device)
        self._evict = flush(self._cache)
        # All graphs share one pool of memory, for none needs what another has left in it.
        self._memory = torch.cuda.graph_pool_handle()

    def contestant(
        self, step: Step, cell: Cell, check: Check, capturable: bool
    ) -> tuple[Contestant, str]:
        steps = self._steps(step, cell)
        if not capturable:
            _all(steps)()
            return Contestant(_all(steps), len(steps), self._evict), "events"
        return self._captured(steps, check), "graph replay"

    def kernel(self, step: Step, cell: Cell, check: Check) -> Contestant | None:
        kernels = [Kernel.of(each) for each in self._steps(step, cell)]
        return self._captured(kernels, check) if kernels[0].launches else None

    def _copied(self, task: Cell) -> Tensor:
        return in_mebibytes(super()._copied(task))

    def _steps(self, step: Step, cell: Cell) -> list[Step]:
        """The step on so many copies of its inputs that none finds its own in the cache."""
        count = number_of_inputs(cell.traffic, self._cache)
        return [step, *(step.on_a_copy() for _ in range(count - 1))]

    def _captured(self, steps: list[T], check: Check) -> Contestant:
        graph = Graph(cycled(steps), self._memory)
        graph.poison()
        graph.replay()
        check(*graph.results[0])
        return Contestant(graph.replay, len(graph.results), self._evict)


@lru_cache(maxsize=8)  # the definitions for one task
def _truth(name: str, task: Cell, seed: int, device: torch.device) -> Truth:
    return Truth(name, *inputs(task, seed, device), task.k)


def _all(steps: Sequence[Step]) -> Callable[[], None]:
    def call() -> None:
        for step in steps:
            step()

    return call


def _explained(cell: Cell, error: Exception) -> str | Exception:
    """A peer's error is a result and says why it was left out; an error of ours is a failure."""
    if isinstance(error, Unavailable):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if IMPLEMENTATIONS[cell.implementation].ours:
        return error
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

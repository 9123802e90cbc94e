"""A step is what is timed; one timer is for a CPU, the other for a GPU."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bench.cells import FORWARD, Cell
from bench.implementations import Loss
from bench.machine import l2_bytes
from bench.rounds import Contestant, Timer

Result = tuple[Tensor, Tensor | None]
Check = Callable[[Tensor, Tensor | None], None]
"""It raises WrongError where a loss or its gradient is wrong."""

_SHORTEST = 1e-3  # seconds of a call on a CPU, beside which those of the clock are nothing
_MOST_STEPS, _FEWEST_STEPS = 64, 8  # in one graph
_SLEEP = 300_000  # cycles, some 150 microseconds


@dataclass(frozen=True)
class Step:
    """A step is one measured piece of work on inputs of its own."""

    loss: Loss
    scores: Tensor
    labels: Tensor

    def __call__(self) -> Result:
        value = self.loss(self.scores, self.labels)
        if not self.scores.requires_grad:
            return value, None
        return value, torch.autograd.grad(value, self.scores)[0]

    def on_a_copy(self) -> Self:
        """The copy has the same scores in other memory."""
        copy = self.scores.detach().clone().requires_grad_(self.scores.requires_grad)
        return Step(self.loss, copy, self.labels)


def inputs(cell: Cell, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    scores = torch.randn(cell.batch, cell.n, generator=generator, device=device)
    labels = torch.randint(cell.n, (cell.batch,), generator=generator, device=device)
    return scores.to(getattr(torch, cell.dtype)).requires_grad_(cell.work != FORWARD), labels


class HostTimer(Timer):
    """A CPU is timed by the host's clock, short calls many at once."""

    def contestant(self, step: Step, traffic: int, check: Check, capturable: bool) -> Contestant:
        """A contestant is the step, which moves so many bytes, made ready to be timed."""
        return _in_turn([step] * math.ceil(_SHORTEST / self.stopwatch(step)))


class DeviceTimer(Timer):
    """A GPU is timed by its events: a CUDA graph of steps on inputs that are not in the cache, or, where the steps
    synchronise with the host, these without a graph."""

    def __init__(self, device: torch.device) -> None:
        self._cache = l2_bytes(device)
        # It leaves the cache full of something else, and of nothing that has yet to be written to memory.
        self._evict = torch.zeros(self._cache // 2, device=device).sum
        # All graphs share one pool of memory, for none needs what another has left in it.
        self._memory = torch.cuda.graph_pool_handle()

    def waiting(self) -> float:
        return 0.0

    def stopwatch(self, call: Callable[[], object]) -> float:
        """The seconds are those from the call's place in the device's queue to its end.

        The queue sleeps first, so that the host has queued the call before the device comes to it: else the time would
        be that of queueing, too.
        """
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._evict()
        torch.cuda._sleep(_SLEEP)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def contestant(self, step: Step, traffic: int, check: Check, capturable: bool) -> Contestant:
        # So many copies of the inputs, at least two, that a step finds nothing of its own in the cache.
        count = min(_MOST_STEPS, max(2, math.ceil(4 * self._cache / traffic)))
        steps = [step, *(step.on_a_copy() for _ in range(count - 1))]
        if not capturable:
            for each in steps:
                each()
            return _in_turn(steps)
        # Often enough in turn for launching the first to be next to nothing of it.
        graph = Graph(steps * math.ceil(_FEWEST_STEPS / count), self._memory)
        for tensor in (tensor for result in graph.results for tensor in result):
            if tensor is not None:
                tensor.fill_(torch.nan)  # so that a result can only be the replay's
        graph.replay()
        check(*graph.results[0])
        return Contestant(graph.replay, len(graph.results))


class Graph:
    """A CUDA graph of steps takes their device time without that of launching them.

    A graph has addresses only: what the steps read is kept as long as it.
    """

    def __init__(self, steps: Sequence[Step], memory: tuple[int, int]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                steps[0]()
        torch.cuda.current_stream().wait_stream(stream)
        self._steps = steps
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=memory):
            self.results = [step() for step in steps]

    def replay(self) -> None:
        self._graph.replay()


def _in_turn(steps: Sequence[Step]) -> Contestant:
    def call() -> None:
        for step in steps:
            step()

    return Contestant(call, len(steps))

"""What is timed, and the clock of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.results import BOTH, Cell

Result = tuple[Tensor, Tensor | None]
Loss = Callable[[Tensor, Tensor], Tensor]

_MOST_STEPS = 64  # in one graph


@dataclass(frozen=True)
class Step:
    """One measured piece of work on inputs of its own."""

    loss: Loss
    scores: Tensor
    labels: Tensor

    def __call__(self) -> Result:
        value = self.loss(self.scores, self.labels)
        if not self.scores.requires_grad:
            return value, None
        return value, torch.autograd.grad(value, self.scores)[0]

    def on_a_copy(self) -> Step:
        """For implementations that overwrite their scores."""
        copy = self.scores.detach().clone().requires_grad_(self.scores.requires_grad)
        return Step(self.loss, copy, self.labels)


def inputs(cell: Cell, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    scores = torch.randn(cell.batch, cell.n, generator=generator, device=device)
    labels = torch.randint(cell.n, (cell.batch,), generator=generator, device=device)
    scores = scores.to(getattr(torch, cell.dtype)).requires_grad_(cell.work == BOTH)
    return scores, labels


class DeviceClock:
    """Ticks where the device's queue does: between two readings is the time of what was queued between.

    An event has the resolution of half a microsecond and its distance to another that of float32, so
    readings add up distances to the one before.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last = self._event()

    def __call__(self) -> float:
        now = self._event()
        now.synchronize()
        self._seconds += self._last.elapsed_time(now) / 1e3
        self._last = now
        return self._seconds

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def number_of_inputs(traffic: int, l2_bytes: int) -> int:
    """So many that a step finds nothing of its inputs in the cache, at least two."""
    return min(_MOST_STEPS, max(2, -(-4 * l2_bytes // traffic)))


class Graph:
    """Steps captured in a CUDA graph: their device time without that of launching them."""

    def __init__(self, steps: list[Step], memory: tuple[int, int]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                steps[0]()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=memory):
            self.results = [step() for step in steps]

    def replay(self) -> None:
        self._graph.replay()

    def poison(self) -> None:
        """So that a result can only be this replay's."""
        for result in self.results:
            for tensor in result:
                if tensor is not None:
                    tensor.fill_(torch.nan)


def flush(l2_bytes: int) -> Callable[[], None]:
    """A function that leaves the cache full of something else."""
    buffer = torch.empty(2 * l2_bytes, dtype=torch.int8, device="cuda")

    def write() -> None:
        buffer.zero_()

    return write

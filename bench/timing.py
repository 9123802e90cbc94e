"""What is timed, and the stopwatch of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.results import BOTH, Cell
from triton_topk.kernels.backend import kernels

T = TypeVar("T")

Result = tuple[Tensor, Tensor | None]
Loss = Callable[[Tensor, Tensor], Tensor]

_MOST_STEPS = 64  # in one graph
_FEWEST_STEPS = 8
_MEBIBYTE = 2**20
_SLEEP = 300_000  # cycles, some 150 microseconds


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
        """The same scores in other memory."""
        copy = self.scores.detach().clone().requires_grad_(self.scores.requires_grad)
        return Step(self.loss, copy, self.labels)


def inputs(cell: Cell, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    scores = torch.randn(cell.batch, cell.n, generator=generator, device=device)
    labels = torch.randint(cell.n, (cell.batch,), generator=generator, device=device)
    scores = scores.to(getattr(torch, cell.dtype)).requires_grad_(cell.work == BOTH)
    return scores, labels


class DeviceStopwatch:
    """The seconds of a call on a device with a queue: from the call's place in the queue to its end.

    The queue sleeps first, so that the host has queued the call before the device comes to it: else the time would be
    that of queueing, too.
    """

    def __call__(self, call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(_SLEEP)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def number_of_inputs(traffic: int, l2_bytes: int) -> int:
    """So many that a step finds nothing of its inputs in the cache, at least two."""
    return min(_MOST_STEPS, max(2, -(-4 * l2_bytes // traffic)))


def cycled(steps: list[T]) -> list[T]:
    """The steps of a call: often enough in turn for launching the first to be next to nothing of it."""
    return steps * -(-_FEWEST_STEPS // len(steps))


@dataclass(frozen=True)
class Kernel:
    """The kernel of the loss in a step of ours, without PyTorch's operations: launched again, to the same tensors."""

    launches: list[tuple[tuple[Any, ...], dict[str, Any]]]

    @classmethod
    def of(cls, step: Step) -> Kernel:
        """What a call of the step launches."""
        launch = kernels()
        run, launches = launch.run, []

        def record(*args: Any, **kwargs: Any) -> None:
            launches.append((args, kwargs))
            run(*args, **kwargs)

        launch.run = record
        try:
            step()
        finally:
            launch.run = run
        return cls(launches)

    def __call__(self) -> Result:
        for args, kwargs in self.launches:
            kernels().run(*args, **kwargs)
        written = [kwargs for _, kwargs in self.launches]
        losses, gradient = (
            next((found[name] for found in written if found.get(name) is not None), None)
            for name in ("losses", "gradient")
        )
        assert losses is not None
        return losses, gradient


class Graph:
    """Steps captured in a CUDA graph: their device time without that of launching them.

    A graph has addresses only: what the steps read is kept as long as it.
    """

    def __init__(self, steps: Sequence[Callable[[], Result]], memory: tuple[int, int]) -> None:
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

    def poison(self) -> None:
        """So that a result can only be this replay's."""
        for result in self.results:
            for tensor in result:
                if tensor is not None:
                    tensor.fill_(torch.nan)


def flush(l2_bytes: int) -> Callable[[], object]:
    """A function that leaves the cache full of something else, and of nothing that has yet to be written to memory."""
    return torch.zeros(l2_bytes // 2, device="cuda").sum


def in_mebibytes(scores: Tensor) -> Tensor:
    """As many random numbers, in whole mebibytes: CUDA's copies of others are slower by a fifth."""
    unit = min(_MEBIBYTE // scores.itemsize, scores.numel())
    return scores.new_empty(-(-scores.numel() // unit) * unit).normal_()

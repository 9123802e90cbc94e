"""Forward and backward of each loss are timed beside F.cross_entropy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from triton_topk.check.losses import losses
from triton_topk.check.waiting import waiting

ROWS, CLASSES, K = 256, 1000, 5
ROUNDS, CALLS = 20, 5
_BUSY = 0.1
_LINE = "{:37}{:>8}{:>24}{:>14}"


def table(device: torch.device) -> Iterator[str]:
    generator = torch.Generator(device).manual_seed(0)
    scores = torch.randn(ROWS, CLASSES, generator=generator, device=device).requires_grad_()
    labels = torch.randint(CLASSES, (ROWS,), generator=generator, device=device)
    timed: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"F.cross_entropy": F.cross_entropy}
    timed |= {str(loss): loss for loss in losses(K)}

    def call(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(scores, labels), scores)

    waited, start = waiting(), time.perf_counter()
    found = in_turns([call(loss) for loss in timed.values()], device)
    busy = (waiting() - waited) / (time.perf_counter() - start)
    yield _LINE.format("", "ms", "times F.cross_entropy", "IQR / median")
    base = min(found[0])
    for name, seconds in zip(timed, found, strict=True):
        least = min(seconds)
        low, median, high = statistics.quantiles(seconds, n=4)
        yield _LINE.format(
            name, f"{1e3 * least:.3g}", f"{least / base:.3g}", f"{(high - low) / median:.0%}"
        )
    if busy > _BUSY:
        yield f"The machine is busy: threads waited for a CPU for {busy:.0%} of the time."


def in_turns(calls: Sequence[Callable[[], object]], device: torch.device) -> list[list[float]]:
    """Time each call in every round, so that what slows the machine for a while slows all of them; in seconds."""
    found: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()  # compiles what there is to compile
    for _ in range(ROUNDS):
        for call, seconds in zip(calls, found, strict=True):
            start = _now(device)
            for _ in range(CALLS):
                call()
            seconds.append((_now(device) - start) / CALLS)
    return found


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()

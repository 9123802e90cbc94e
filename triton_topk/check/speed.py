"""How long forward and backward of each loss take, beside F.cross_entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from triton_topk.check.losses import losses

ROWS, CLASSES, K = 256, 1000, 5
_SECONDS = 0.3  # for each


def table(device: torch.device) -> Iterator[str]:
    generator = torch.Generator(device).manual_seed(0)
    scores = torch.randn(ROWS, CLASSES, generator=generator, device=device)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator, device=device)
    seconds = partial(_seconds, scores=scores.requires_grad_(), labels=labels)

    base = seconds(F.cross_entropy)
    yield f"{'':37}{'ms':>8}{'times F.cross_entropy':>24}"
    yield f"{'F.cross_entropy':37}{1e3 * base:8.3g}{1:24}"
    for loss in losses(K):
        own = seconds(loss)
        yield f"{loss!s:37}{1e3 * own:8.3g}{own / base:24.3g}"


def _seconds(loss: Callable[[Tensor, Tensor], Tensor], scores: Tensor, labels: Tensor) -> float:
    def step() -> None:
        torch.autograd.grad(loss(scores, labels), scores)

    step()  # compiles what there is to compile
    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=_SECONDS).median

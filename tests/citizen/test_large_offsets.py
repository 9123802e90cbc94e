"""Offsets beyond 32 bits are right.  Memory that is never touched costs nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from losses import Loss, every_loss, exactly_equal, random_scores
from torch import Tensor

FAR = 2**30  # scores between two that are neighbours otherwise
# shape of the scores, and which of their dimensions is far apart
LAYOUTS = {
    "classes": ((64, 4), 1),
    "rows": ((4, 64), 0),
    "pixels": ((3, 5, 4), 2),
    "row": ((5,), 0),
}


def far_apart(near: Tensor, dim: int) -> Tensor:
    """The same float16 scores in 6 GB of addresses."""
    strides = list(torch.empty(near.select(dim, 0).shape).stride())
    strides.insert(dim, FAR)
    size = FAR * (near.shape[dim] - 1) + near.numel()
    out = torch.empty(size, dtype=near.dtype).as_strided(near.shape, strides)
    return out.copy_(near)


def _results(
    loss: Loss, shape: tuple[int, ...], dim: int, backend: str
) -> list[tuple[Tensor, Tensor]]:
    """Return the results of scores that are far apart, and of the same side by side."""
    near = random_scores(*shape, dtype=torch.float16)
    labels = near.argmin(min(1, len(shape) - 1))
    return [
        loss.with_gradient(scores, labels, reduction="none", backend=backend)
        for scores in (far_apart(near, dim), near)
    ]


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """Another process, since so much memory can kill one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@every_loss
@pytest.mark.parametrize(("shape", "dim"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("backend", ["native", "eager"])
def test_offsets_past_two_to_the_31(
    loss: Loss, shape: tuple[int, ...], dim: int, backend: str, process: ProcessPoolExecutor
) -> None:
    if backend == "native":
        pytest.importorskip("numba")
    far, near = process.submit(_results, loss, shape, dim, backend).result()
    assert near[1].any()
    exactly_equal(far, near)

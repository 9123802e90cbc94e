"""The number of PyTorch operations decides how long the eager backend takes for a small batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from triton_topk import eager
from triton_topk.batch import Batch
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM


class Operations(TorchDispatchMode):
    """The operations are counted, views among them."""

    number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


# with the gradient, and without
MOST = [
    (SmoothSVM(1, 1.0, 1.0), 2, 36, 26),
    (SmoothSVM(1, 0.5, 1.0), 10, 40, 30),
    (Lq(0.7), 10, 38, 28),
    (HardSVM(3, 1.0), 10, 37, 20),
    (SmoothSVM(3, 1.0, 1.0), 10, 104, 58),
    (SmoothSVM(5, 1.0, 1.0), 100, 250, 188),
    (SmoothSVM(5, 1.0, 1.0), 1000, 310, 248),
    (Mixture(3, 1.0, 1.0, None, 0.7, None, 0.5), 10, 136, 80),
]


@pytest.mark.parametrize(("loss", "n", "with_gradient", "without"), MOST, ids=str)
def test_a_small_batch_takes_few_operations(
    loss: Loss, n: int, with_gradient: int, without: int
) -> None:
    scores, labels = torch.randn(16, n), torch.arange(16) % n
    batch, losses = Batch(scores, labels, complete=True, divisor=16.0), torch.empty(16)
    with Operations() as operations:
        eager.run(batch, loss, losses=losses, gradient=torch.empty_like(scores))
    assert operations.number <= with_gradient
    with Operations() as operations:
        eager.run(batch, loss, losses=losses)
    assert operations.number <= without

"""Summaries of shards are merged in an order that depends on the number of shards alone."""

from __future__ import annotations

import pytest
import torch

from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM
from triton_topk.summary import Summary, merge, numbers

LOSSES = [
    SmoothSVM(5, 1.0, 1.0),
    HardSVM(5, 1.0),
    Lq(0.7),
    Mixture(5, 1.0, 1.0, None, 0.7, None, 0.3),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("shards", [1, 2, 9, 64])
def test_a_row_alone_has_the_same_bits(loss: Loss, shards: int) -> None:
    torch.manual_seed(0)
    summaries = torch.rand(shards, numbers(loss.form), 40, dtype=torch.float64)
    v = Summary.of(summaries, loss.form).v
    v.copy_(v.sort(1, descending=True).values)
    whole = merge(summaries, loss.form)
    for row in range(40):
        alone = merge(summaries[:, :, row : row + 1].contiguous(), loss.form)
        assert torch.equal(alone.nan_to_num(7.0), whole[:, row : row + 1].nan_to_num(7.0))

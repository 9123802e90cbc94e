"""Summaries of shards are merged to that of all classes, in an order that depends on the number of shards alone."""

from __future__ import annotations

from dataclasses import replace

import in_shards
import pytest
import torch
from torch import Tensor

from triton_topk import eager
from triton_topk.batch import Batch
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


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("widths", [(40, 60), (3, 0, 57, 4, 36)], ids=str)
def test_a_merged_summary_is_that_of_all_classes(loss: Loss, widths: tuple[int, ...]) -> None:
    loss = replace(loss, hits=loss.form.k)
    torch.manual_seed(0)
    scores, labels = torch.randn(60, 100), torch.randint(100, (60,))
    # ties of the smallest scores that are treated one by one, within shards and across them
    scores[:40] = (2 * scores[:40]).round()
    batch = Batch(scores, labels)

    def of_shards(widths: tuple[int, ...]) -> Tensor:
        shards = in_shards.localize(batch, loss, widths)
        return torch.stack([in_shards.summarize(eager, *shard) for shard in shards])

    merged = Summary.of(merge(of_shards(widths), loss.form), loss.form)
    whole = Summary.of(of_shards((100,))[0], loss.form)
    assert 0 < whole.tied.sum() < 60
    for name in ("v", "tied", "s_y"):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name
    # beyond the hits nobody asks for it
    ranks = [summary.rank.clamp(max=loss.hits) for summary in (merged, whole)]
    assert torch.equal(*ranks)
    torch.testing.assert_close((merged.r, merged.total), (whole.r, whole.total), rtol=1e-5, atol=0)

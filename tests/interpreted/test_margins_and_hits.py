"""Margins and weights of rows, and top-k hits in the kernels, against the eager backend and a stable sort."""

from __future__ import annotations

import math

import pytest
import torch
from running import LAYOUTS, PARTS, RESIDENT, difficult_rows, run

import triton_topk
from triton_topk import eager
from triton_topk.kernels import launch
from triton_topk.losses import HardSVM, Loss, Lq, Mixture, SmoothSVM

# numpy's, of infinite scores
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

N, C = 16, 21
SMOOTH = SmoothSVM(3, 0.5, 0.25, hits=3)
LOSSES = [
    SMOOTH,
    SmoothSVM(1, 1.0, 0.25, hits=1),
    SmoothSVM(5, 1.0, 0.25, 2, hits=5),
    HardSVM(3, 0.25, hits=3),
    Lq(0.7, hits=3),
    Lq(0.7, 0.3, hits=1),
    Mixture(3, 0.5, 0.25, None, 0.7, None, 0.3, hits=3),
]


def rows(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows with ties, masked classes, an ignored label, and NaN beside a label on top."""
    generator = torch.Generator().manual_seed(0)
    scores = (2 * torch.randn(N, C, generator=generator)).to(dtype)
    labels = torch.randint(C, (N,), generator=generator)
    scores[:8] = (scores[:8] / 2).round()
    scores[8, ::2] = -math.inf
    labels[8] = 4
    scores[9] = 1
    labels[9] = 2
    labels[10] = -100
    scores[11, 0] = math.nan
    labels[11] = scores[11, 1:].argmax() + 1
    return scores, labels


@pytest.mark.exhaustive(one_in=3)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hits(loss: Loss, layout: str) -> None:
    scores, labels = rows()
    order = scores.sort(dim=1, descending=True, stable=True).indices
    hit = order == labels.unsqueeze(1)
    expected = torch.stack((hit[:, 0], hit[:, : loss.hits].any(1)), 1)
    expected[[10, 11]] = False
    hits = ~expected
    run(launch, scores, labels, loss, LAYOUTS[layout], hits=hits)
    assert hits.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_hits_in_other_dtypes(dtype: torch.dtype) -> None:
    scores, labels = rows(dtype)
    found, expected = (torch.zeros(N, 2, dtype=torch.bool) for _ in range(2))
    run(eager, scores, labels, SMOOTH, hits=expected)
    run(launch, scores, labels, SMOOTH, hits=found)
    assert found.tolist() == expected.tolist()


MARGINS = {
    "classes": torch.linspace(0, 2, C),
    "samples": torch.linspace(0, 2, N, dtype=torch.float64).unsqueeze(1),
    "all": torch.tensor(1.5),
}


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        *((SMOOTH, of) for of in MARGINS),
        *((loss, "samples") for loss in LOSSES if isinstance(loss, HardSVM | Mixture)),
    ],
    ids=str,
)
def test_margins(loss: Loss, of: str) -> None:
    scores, labels = rows()
    margins = MARGINS[of].expand(N, C)
    expected = run(eager, scores, labels, loss, margins=margins)
    for config in (RESIDENT, PARTS):
        found = run(launch, scores, labels, loss, config, margins=margins)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    without = run(eager, scores, labels, loss)
    assert not torch.equal(expected[0][:8], without[0][:8])


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("weight", [None, torch.linspace(0.5, 2, C)], ids=["alone", "and classes"])
def test_sample_weights(loss: Loss, weight: torch.Tensor | None) -> None:
    scores, labels, known, poisoned, clean = difficult_rows()
    sample_weight = torch.linspace(0, 2, len(labels), dtype=torch.float64)
    sample_weight[8] = math.nan
    assert labels[8] == -100
    given = {"weight": weight, "sample_weight": sample_weight}
    expected = run(eager, scores, known, loss, **given)
    for config in (RESIDENT, PARTS):
        found = run(launch, scores, labels, loss, config, **given)
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x[clean], y[clean], rtol=1e-5, atol=1e-6)
            assert x[poisoned].isnan().reshape(len(poisoned), -1).all()
        assert (found[1][8] == 0).all()


def test_hits_beyond_the_scores_that_a_kernel_selects_are_the_eager_backends() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(20, 100), torch.randint(100, (20,))
    with pytest.raises(ValueError, match="supports k <= 16, got k=30"):
        triton_topk.lq_loss(scores, labels, k=30, return_topk_hits=True, backend="triton")
    _, hits = triton_topk.lq_loss(scores, labels, k=30, return_topk_hits=True)
    expected = (scores.topk(30).indices == labels[:, None]).any(1)
    assert torch.equal(hits.topk, expected)

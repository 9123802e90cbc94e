"""The same bits twice, and PyTorch's mode that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from losses import (
    REDUCTIONS,
    Loss,
    each,
    every_loss,
    exactly_equal,
    random_labels,
    random_scores,
    variants,
    with_margins,
)
from torch import Tensor

ALL = [
    *variants(1, 5, 16),
    *(Loss("smooth_svm", k=k) for k in (60, 300)),
    *with_margins(5, torch.linspace(0, 2, 310)),
]


def results(loss: Loss, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, ...]]:
    scores, labels = random_scores(9, 310, dtype=dtype), random_labels(9, n=310)
    scores[2] = scores[2].round()
    labels[4] = -100
    weight = torch.linspace(0.5, 2, 310)
    return [
        *(
            loss.with_gradient(scores, labels, weight=weight, reduction=reduction)
            for reduction in REDUCTIONS
        ),
        loss.with_gradient(scores, labels, weight=weight, normalizer=7),
        loss(scores, labels, return_topk_hits=True)[1],
    ]


@pytest.fixture
def deterministic() -> Iterator[None]:
    """PyTorch refuses what is not deterministic, and fills with NaN what is allocated without a value."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@each(ALL)
def test_the_same_bits_twice(loss: Loss) -> None:
    exactly_equal(results(loss), results(loss))


@each(ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_mode_changes_nothing(
    loss: Loss, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    expected = results(loss, dtype)
    request.getfixturevalue("deterministic")
    found = results(loss, dtype)
    exactly_equal(found, expected)
    assert all(x.isfinite().all() for pair in found for x in pair)


@pytest.mark.usefixtures("deterministic", "compiler")
@every_loss
def test_the_mode_and_the_compiler(loss: Loss) -> None:
    scores, labels = random_scores(9, 11), random_labels(9, n=11)
    leaf = scores.clone().requires_grad_()
    found = torch.compile(loss.module(), fullgraph=True, backend="aot_eager")(leaf, labels)
    found.backward()
    torch.testing.assert_close((found.detach(), leaf.grad), loss.with_gradient(scores, labels))

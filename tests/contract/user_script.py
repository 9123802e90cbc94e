"""A user's type checker understands the losses: test_types.py has mypy read this, and nothing runs it.

Each `type: ignore` is an error that has to be found.
"""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor

import triton_topk
from triton_topk import (
    TopkHits,
    hard_svm,
    linear_hard_svm,
    linear_lq_loss,
    linear_smooth_svm,
    linear_smooth_svm_lq,
    lq_loss,
    smooth_svm,
    smooth_svm_lq,
)
from triton_topk.nn import HardSVMLoss, LqLoss, SmoothSVMLoss, SmoothSVMLqLoss, TruncatedLqLoss
from triton_topk.topk_svm import MaxTopkSVM, SmoothTop1SVM, SmoothTopkSVM

LossAndHits = tuple[Tensor, TopkHits]

scores, labels = torch.randn(8, 10, requires_grad=True), torch.randint(10, (8,))
weight, margin = torch.ones(10), torch.ones(8, 1)
of_samples = torch.ones(8, 1)


def functions(hits: bool) -> None:
    assert_type(smooth_svm(scores, labels), Tensor)
    assert_type(hard_svm(scores, labels, 3, margin=margin, weight=weight), Tensor)
    assert_type(smooth_svm(scores, labels, weight=(weight, of_samples)), Tensor)
    assert_type(lq_loss(scores, labels, q=0.5, truncation=0.1, return_topk_hits=False), Tensor)
    assert_type(smooth_svm_lq(scores, labels, mix=0.3, normalizer=8, backend="eager"), Tensor)

    assert_type(smooth_svm(scores, labels, tau=0.5, order=2, return_topk_hits=True), LossAndHits)
    assert_type(hard_svm(scores, labels, margin=margin, return_topk_hits=True), LossAndHits)
    assert_type(lq_loss(scores, labels, k=3, return_topk_hits=True), LossAndHits)
    assert_type(smooth_svm_lq(scores, labels, q=0.1, order=2, return_topk_hits=True), LossAndHits)

    assert_type(smooth_svm(scores, labels, return_topk_hits=hits), Tensor | LossAndHits)
    assert_type(hard_svm(scores, labels, return_topk_hits=hits), Tensor | LossAndHits)
    assert_type(
        lq_loss(scores, labels, truncation=0.1, return_topk_hits=hits), Tensor | LossAndHits
    )
    assert_type(smooth_svm_lq(scores, labels, mix=1, return_topk_hits=hits), Tensor | LossAndHits)


def linear_layers(x: Tensor, w: Tensor) -> None:
    assert_type(linear_smooth_svm(x, w, labels, 3, tau=0.5, order=2), Tensor | LossAndHits)
    assert_type(linear_hard_svm(x, w, labels, margin=margin, chunk_rows=4), Tensor | LossAndHits)
    assert_type(linear_lq_loss(x, w, labels, 0.5, linear_bias=weight, k=3), Tensor | LossAndHits)
    assert_type(linear_smooth_svm_lq(x, w, labels, mix=0.3, normalizer=8), Tensor | LossAndHits)
    linear_smooth_svm(x, w, labels, redution="sum")  # type: ignore[call-arg]
    linear_hard_svm(x, w, labels, tau=0.5)  # type: ignore[call-arg]
    linear_lq_loss(x, w, labels, chunk_rows="4")  # type: ignore[arg-type]


def modules() -> None:
    criterion = SmoothSVMLoss(k=3, tau=0.5, margin=margin, reduction="sum", gradient="taylor")
    criterion.tau = 0.1
    assert_type(criterion.forward(scores, labels, normalizer=8), Tensor | LossAndHits)
    assert_type(criterion.forward(scores, labels, weight=of_samples), Tensor | LossAndHits)
    criterion(scores, labels).backward()
    assert_type(HardSVMLoss(weight=weight).weight, Tensor | None)
    assert_type(LqLoss(truncation=0.1).truncation, float | None)
    assert_type(SmoothSVMLqLoss().mix, float)
    truncated = TruncatedLqLoss(100, backend="eager")
    assert_type(truncated.forward(scores, labels, torch.arange(8)), Tensor)
    assert_type(truncated.kept, Tensor)
    assert_type(triton_topk.nn.LqLoss().k, int)


def authors_criteria() -> None:
    criterion = SmoothTopkSVM(n_classes=10, alpha=None, tau=1.0, k=5)
    criterion.tau = 0.1
    assert_type(criterion.forward(scores, labels), Tensor)
    assert_type(criterion.cuda().k, int)
    assert_type(MaxTopkSVM(10).alpha, float)
    SmoothTop1SVM(n_classes=2, k=3)  # type: ignore[call-arg]


def misspelt(hits: bool) -> None:
    smooth_svm(scores, labels, redution="sum")  # type: ignore[call-overload]
    smooth_svm(scores, labels, redution="sum", return_topk_hits=True)  # type: ignore[call-overload]
    hard_svm(scores, labels, margins=1.0, return_topk_hits=True)  # type: ignore[call-overload]
    lq_loss(scores, labels, truncate=0.1, return_topk_hits=True)  # type: ignore[call-overload]
    smooth_svm_lq(scores, labels, mixing=0.1, return_topk_hits=hits)  # type: ignore[call-overload]
    SmoothSVMLoss(redution="sum")  # type: ignore[call-arg]
    SmoothSVMLoss().forward(scores, labels, return_topk_hits=True)  # type: ignore[call-arg]


def wrong_values() -> None:
    smooth_svm(scores, labels, reduction="avg")  # type: ignore[call-overload]
    smooth_svm(scores, labels, backend="cuda", return_topk_hits=True)  # type: ignore[call-overload]
    smooth_svm(scores, labels, gradient="paper")  # type: ignore[call-overload]
    smooth_svm(scores, labels, weight=[1.0] * 10)  # type: ignore[call-overload]
    smooth_svm(scores, labels, tau=weight, return_topk_hits=True)  # type: ignore[call-overload]
    LqLoss(reduction="avg")  # type: ignore[arg-type]
    TruncatedLqLoss(100, backend="cuda")  # type: ignore[arg-type]

"""The losses that are compared."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from triton_topk.nn import LqLoss, SmoothSVMLoss, SmoothSVMLqLoss, TruncatedLqLoss

CROSS_ENTROPY, SMOOTH_SVM = "cross-entropy", "smooth SVM"
Q, TRUNCATION, TAU, MIX = 0.7, 0.5, 1.0, 0.5

# Each from k of the top-k losses and the number of training samples.
LOSSES: dict[str, Callable[[int, int], nn.Module]] = {
    CROSS_ENTROPY: lambda k, samples: nn.CrossEntropyLoss(reduction="sum"),
    "MAE": lambda k, samples: LqLoss(q=1.0, reduction="sum"),
    "Lq": lambda k, samples: LqLoss(Q, reduction="sum"),
    "truncated Lq": lambda k, samples: TruncatedLqLoss(
        samples, Q, truncation=TRUNCATION, reduction="sum"
    ),
    SMOOTH_SVM: lambda k, samples: SmoothSVMLoss(k, tau=TAU, reduction="sum"),
    "joint": lambda k, samples: SmoothSVMLqLoss(k, Q, mix=MIX, tau=TAU, reduction="sum"),
}


def total(criterion: nn.Module, scores: Tensor, labels: Tensor, samples: Tensor) -> Tensor:
    """Sum of the losses of scores (N, C), for labels (N,) of the training samples (N,)."""
    if isinstance(criterion, TruncatedLqLoss):
        return criterion(scores, labels, samples)
    return criterion(scores, labels)


def prunes_at(criterion: nn.Module, step: int, start: int, every: int) -> bool:
    """Say whether `criterion` chooses anew, after this step, the samples it trains on."""
    due = step >= start and (step - start) % every == 0
    return due and isinstance(criterion, TruncatedLqLoss)


def top_accuracies(scores: Tensor, labels: Tensor, tops: tuple[int, ...]) -> Tensor:
    """Accuracies in percent [tops, ...] of scores [..., samples, classes]."""
    hits = scores.topk(max(tops)).indices == labels[..., None]
    return torch.stack([100 * hits[..., :k].any(-1).float().mean(-1) for k in tops])

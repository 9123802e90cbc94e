"""The losses whose contract is tested, and the scores and labels they are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import triton_topk

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
REDUCTIONS = ("none", "mean", "sum")
MODULES = {
    "smooth_svm": triton_topk.nn.SmoothSVMLoss,
    "hard_svm": triton_topk.nn.HardSVMLoss,
    "lq_loss": triton_topk.nn.LqLoss,
    "smooth_svm_lq": triton_topk.nn.SmoothSVMLqLoss,
}


class Loss:
    """A function of scores and labels with some of its options fixed."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.options = options
        self.function = getattr(triton_topk, name)

    def __call__(self, scores: Tensor, labels: Tensor, **options: Any) -> Tensor:
        return self.function(scores, labels, **self.options, **options)

    def with_gradient(
        self, scores: Tensor, labels: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """The loss and the gradient of its sum, of scores that are left alone."""
        leaf = scores.detach().requires_grad_()
        loss = self(leaf, labels, **options)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    def module(self, **options: Any) -> torch.nn.Module:
        return MODULES[self.name](**self.options, **options)

    def __str__(self) -> str:
        def shown(value: Any) -> Any:
            return tuple(value.shape) if isinstance(value, Tensor) else value

        return "-".join((self.name, *(f"{name}={shown(x)}" for name, x in self.options.items())))


def one_of_each(k: int) -> list[Loss]:
    return [
        Loss("smooth_svm", k=k),
        Loss("hard_svm", k=k),
        Loss("lq_loss", q=0.7),
        Loss("smooth_svm_lq", k=k, q=0.7),
    ]


def with_margins(k: int, margin: Tensor) -> list[Loss]:
    """Every loss that has a margin, with these."""
    names = "smooth_svm", "hard_svm", "smooth_svm_lq"
    return [Loss(name, k=k, margin=margin) for name in names]


def variants(*ks: int) -> list[Loss]:
    """Every loss with every k, both kinds of gradient, both ends of q, and a truncation."""
    of_k = [
        ("smooth_svm", {}),
        ("smooth_svm", {"gradient": "taylor"}),
        ("hard_svm", {}),
        ("smooth_svm_lq", {"q": 0.7, "mix": 0.3}),
        ("smooth_svm_lq", {"q": 0.0, "truncation": 0.01, "gradient": "taylor"}),
    ]
    return [
        *(Loss(name, k=k, **options) for k in ks for name, options in of_k),
        *(Loss("lq_loss", q=q) for q in (0.0, 0.7, 1.0)),
        Loss("lq_loss", q=0.7, truncation=0.01),
    ]


def each(losses: list[Loss]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("loss", losses, ids=str)


every_loss = each(one_of_each(3))


def random_scores(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def random_labels(*shape: int, n: int, seed: int = 1) -> Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


def exactly_equal(actual: Any, expected: Any, **options: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, **options)

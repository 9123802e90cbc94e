"""Autograd's features with losses of shards: they work, or say that they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from losses import Loss, every_loss, exactly_equal, random_labels, random_scores
from processes import Ranks
from sharded import shard_of
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

C, STARTS = 23, [0, 8, 16]
SCORES, LABELS = random_scores(6, C), random_labels(6, n=C)
RanksOf = Callable[[int], Ranks]


def share() -> tuple[Tensor, dict[str, Any]]:
    """A leaf with this rank's scores, and the options of its shard."""
    local, shard = shard_of(SCORES, STARTS)
    return local.clone().requires_grad_(), {"shard": shard}


def checkpointed(loss: Loss, reduction: str, reentrant: bool) -> list[Tensor | None]:
    """The loss and the gradient, with and without."""

    def scaled(x: Tensor) -> Any:
        return loss(1.5 * x, LABELS, reduction=reduction, **options)

    results = []
    for compute in (scaled, lambda x: checkpoint(scaled, x, use_reentrant=reentrant)):
        leaf, options = share()
        out = compute(leaf)
        out.sum().backward()
        results += [out.detach(), leaf.grad]
    return results


@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(loss: Loss, reduction: str, reentrant: bool, ranks_of: RanksOf) -> None:
    for plain, gradient, *found in ranks_of(3)(checkpointed, loss, reduction, reentrant):
        exactly_equal(found, [plain, gradient])


def backward_again(loss: Loss, reduction: str) -> list[Tensor]:
    """The gradients of a first backward, a second, two in a batch by either vmap, and a scaled one."""
    leaf, options = share()
    margin = {} if loss.name == "lq_loss" else {"margin": torch.linspace(0, 2, C)}
    out = loss(leaf, LABELS, reduction=reduction, **margin, **options).sum()
    gradients = [torch.autograd.grad(out, leaf, retain_graph=True)[0] for _ in range(2)]

    def backward(upstream: Tensor, **options: Any) -> Tensor:
        return torch.autograd.grad(out, leaf, upstream, retain_graph=True, **options)[0]

    upstreams = torch.tensor([1.0, 3.0])
    batches = backward(upstreams, is_grads_batched=True), torch.func.vmap(backward)(upstreams)
    return [*gradients, *torch.cat(batches), backward(upstreams[1])]


@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_other_backwards(loss: Loss, reduction: str, ranks_of: RanksOf) -> None:
    for first, *others in ranks_of(3)(backward_again, loss, reduction):
        expected = [factor * first for factor in (1, 1, 3, 1, 3, 3)]
        torch.testing.assert_close(others, expected)


def second_derivative(loss: Loss) -> None:
    leaf, options = share()
    out = loss(leaf, LABELS, **options)
    (gradient,) = torch.autograd.grad(out, leaf, create_graph=True)
    gradient.sum().backward()


def gradient_of_func(loss: Loss) -> None:
    leaf, options = share()
    torch.func.grad(lambda x: loss(x, LABELS, **options))(leaf.detach())


def vmapped(loss: Loss) -> None:
    leaf, options = share()
    torch.func.vmap(lambda x, y: loss(x[None], y[None], **options))(leaf.detach(), LABELS)


def jvp_of_func(loss: Loss) -> None:
    leaf, options = share()
    scores = leaf.detach()
    torch.func.jvp(lambda x: loss(x, LABELS, **options), (scores,), (scores,))


def forward_mode(loss: Loss) -> None:
    leaf, options = share()
    scores = leaf.detach()
    with forward_ad.dual_level():
        loss(forward_ad.make_dual(scores, scores), LABELS, **options)


@every_loss
@pytest.mark.parametrize(
    "use",
    [second_derivative, gradient_of_func, vmapped, jvp_of_func, forward_mode],
)
def test_what_shards_have_not(loss: Loss, use: Callable[..., Any], ranks_of: RanksOf) -> None:
    for error in ranks_of(3).errors(use, loss):
        assert error.startswith(f"NotImplementedError: {loss.name} "), error

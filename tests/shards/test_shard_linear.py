"""The fused linear layer where each rank has the weight of some of the classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from losses import Loss, every_loss, exactly_equal, random_labels, random_scores
from processes import Ranks
from sharded import shard_of
from torch import Tensor
from torch.distributed.tensor.debug import CommDebugMode

import triton_topk

C = 23
INPUT, LABELS = random_scores(6, 9), random_labels(6, n=C).index_fill(0, torch.tensor(2), -100)
WEIGHT, BIAS = random_scores(C, 9, seed=3), random_scores(C, seed=4)
RanksOf = Callable[[int], Ranks]


def step(
    loss: Loss, reduction: str, weight: Tensor, bias: Tensor | None, **options: Any
) -> list[Tensor]:
    """Return the loss and the gradients of the input, the weight and the bias, and again those of another backward."""
    of_layer = getattr(triton_topk, f"linear_{loss.name}")
    given = [INPUT, weight] if bias is None else [INPUT, weight, bias]
    leaves = [x.detach().clone().requires_grad_() for x in given]
    options |= loss.options | {"reduction": reduction, "chunk_rows": 4}
    options["linear_bias"] = None if bias is None else leaves[2]
    out = of_layer(leaves[0], leaves[1], LABELS, **options)
    upstream = torch.linspace(1, 2, out.numel()).reshape(out.shape)
    first = torch.autograd.grad(out, leaves, upstream, retain_graph=True)
    return [out.detach(), *first, *torch.autograd.grad(out, leaves, 2 * upstream)]


def step_of_shard(
    loss: Loss, reduction: str, starts: list[int], bias: Tensor | None
) -> tuple[list[Tensor], dict[str, int]]:
    """Return the results of a rank, and the collectives of their computation."""
    weight, shard = shard_of(WEIGHT.t(), starts)
    of_classes = None if bias is None else shard_of(bias, starts)[0]
    with CommDebugMode() as mode:
        results = step(loss, reduction, weight.t(), of_classes, shard=shard)
    return results, {str(name): count for name, count in mode.get_comm_counts().items()}


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("starts", [[0, 8, 16], [0, 9, 9]], ids=["even", "one is empty"])
@pytest.mark.parametrize("bias", [None, BIAS], ids=["no bias", "bias"])
def test_the_layer_of_all_classes(
    loss: Loss, reduction: str, starts: list[int], bias: Tensor | None, ranks_of: RanksOf
) -> None:
    found = ranks_of(3)(step_of_shard, loss, reduction, starts, bias)
    for _, collectives in found:
        assert collectives == {"c10d._allgather_base_": 1, "c10d.allreduce_": 2}
    expected, together = step(loss, reduction, WEIGHT, bias), []
    for whole, *parts in zip(expected, *[results for results, _ in found], strict=True):
        # the loss and the gradient of the input are those of all classes
        if whole.shape in (found[0][0][0].shape, INPUT.shape):
            exactly_equal(parts, [parts[0]] * 3)
        together.append(parts[0] if parts[0].shape == whole.shape else torch.cat(parts))
    torch.testing.assert_close(together, expected)

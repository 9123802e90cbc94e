"""Whether what a call returns is the answer."""

from __future__ import annotations

import math

import torch
from answers import Answer
from calls import Call, as_rows
from torch import Tensor
from torch.utils._pytree import tree_leaves

# What the floating-point numbers cannot hold with all digits, and do not have to.
_SMALLEST = {
    torch.float16: 1.2e-7,
    torch.bfloat16: 1e-37,
    torch.float32: 1e-37,
    torch.float64: 1e-300,
}


def check(call: Call, backend: str) -> None:
    """The call is right and changes none of its arguments."""
    tensors = [call.scores, call.labels, *tree_leaves(call.options)]
    tensors = [x for x in tensors if isinstance(x, Tensor)]
    before = [x.clone() for x in tensors]
    call.scores.requires_grad_()
    out = call(backend=backend)
    hits = None
    if call.options.get("return_topk_hits"):
        out, hits = out
    (call.upstream * out.sum()).backward()
    for x, x_before in zip(tensors, before, strict=True):
        torch.testing.assert_close(x.detach(), x_before, rtol=0, atol=0, equal_nan=True)

    answer = Answer(call)
    _check_losses(out.detach(), answer)
    gradient = call.scores.grad
    assert gradient is not None
    assert gradient.dtype == call.scores.dtype
    _check_gradient(gradient, answer)
    if hits is not None:
        assert [of.shape for of in hits] == [call.labels.shape] * 2
        expected = [_ranked(answer, 1), _ranked(answer, answer.options["k"])]
        assert [of.reshape(-1).tolist() for of in hits] == expected


def _check_losses(out: Tensor, answer: Answer) -> None:
    assert out.dtype == answer.dtype
    losses = torch.tensor([row.loss if row else 0.0 for row in answer.rows], dtype=torch.float64)
    errors = torch.tensor(
        [row.loss_error if row else 0.0 for row in answer.rows], dtype=torch.float64
    )
    counted = torch.tensor([row is not None for row in answer.rows], dtype=torch.bool)
    losses = torch.where(counted, losses * answer.scale, 0)
    errors = errors * answer.scale + 4 * torch.finfo(answer.dtype).eps * losses
    if answer.options["reduction"] == "none":
        assert out.shape == answer.call.labels.shape
        out = out.reshape(-1)
    else:
        assert out.shape == ()
        losses, errors = losses.sum(), errors.sum()
        if answer.options["reduction"] == "mean" and answer.options["normalizer"] is None:
            losses = losses.where(counted.any(), math.nan)
    _assert_within(out, losses, errors)


def _check_gradient(gradient: Tensor, answer: Answer) -> None:
    rounding = torch.finfo(gradient.dtype)
    scales = answer.scale * answer.call.upstream
    for entries, row, scale in zip(as_rows(gradient), answer.rows, scales, strict=True):
        if row is None:
            assert (entries == 0).all()
            continue
        expected = torch.tensor(row.gradient, dtype=torch.float64) * scale
        allowed = row.gradient_error * scale.abs() + 2 * rounding.eps * expected.abs()
        _assert_within(entries.to(gradient.dtype), expected, allowed)


def _assert_within(found: Tensor, expected: Tensor, allowed: Tensor) -> None:
    """found: of the type that has to hold the numbers; the others in float64."""
    largest, smallest = torch.finfo(found.dtype).max, _SMALLEST[found.dtype]
    found = found.double()
    right = (found == expected) | (found.isnan() & expected.isnan())
    right |= expected.isfinite() & ((found - expected).abs() <= allowed + smallest)
    # a sum that is divided afterwards may be larger
    right |= (expected.abs() + allowed > largest / 16) & (found == expected.sign() * math.inf)
    assert right.all(), (found, expected, allowed)


def _ranked(answer: Answer, k: int) -> list[bool]:
    """Is the label of each row among the k largest scores?  Of equal scores the lower class comes first."""
    found = []
    for row, scores, label in zip(
        answer.rows, answer.call.rows.tolist(), answer.labels, strict=True
    ):
        if row is None or math.isnan(row.loss):
            found.append(False)
        else:
            ranking = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
            found.append(label in ranking[:k])
    return found

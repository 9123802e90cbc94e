"""The gradient of a loss costs reading the scores once and writing the gradient once.

Traffic, in units of one read or write of the scores.  Where the loss is reduced to a number, the forward
writes the gradient beside the losses (read 1, write 1) and the backward multiplies it in place by
the incoming number, which on a GPU moves no data when that is 1: 2 in all, 4 for a scaled loss.
Otherwise (reduction "none", float16 whose small gradients only a scaled loss keeps from flushing to zero,
a second backward, torch.compile, torch.func) the backward computes the gradient from the scores: 3 in all,
and no tensor of the scores' size is held between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from triton_topk import backends, ops
from triton_topk.batch import Batch, accumulation_dtype
from triton_topk.double_backward import pull_back_gradient
from triton_topk.losses import Loss
from triton_topk.vmap import batches_first, merge

_NO_GRADIENTS = (None,) * (len(Batch._fields) - 1)  # of all of a batch but the scores


def function(
    batch: Batch, loss: Loss, *, summed: bool, recorded: bool
) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the function of the loss and the batch's tensors that serves this call.

    It returns the losses (N,), or perhaps their sum if that is what is wanted, differentiable in the scores; and the
    hits (N, 2) or None.
    """
    if recorded:
        return partial(ops.call_operator, "")
    scores, observed = batch.scores, _is_observed()
    differentiable = scores.requires_grad and torch.is_grad_enabled()
    if not differentiable and not observed:
        return ops.way_to("", batch)
    keeps_gradient = summed and not observed and scores.dtype != torch.float16
    return _SummedLoss.apply if keeps_gradient else _Losses.apply


def is_recorded() -> bool:
    """Return whether the call becomes part of a graph, of torch.compile or torch.jit.trace."""
    return is_compiling() or torch._C._is_tracing()


def _is_observed() -> bool:
    """Return whether a gradient that is kept between forward and backward would be in the way.

    A transform of torch.func and forward mode are given what has been recorded; and who packs saved tensors, as
    activation checkpointing does, wants none of the size of the scores.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    )


def _check_batch(loss: Loss, upstream: Tensor) -> None:
    """Raise an error where PyTorch would drop the graph of a batch of gradients without a word."""
    if is_legacy_batchedtensor(upstream) and torch.is_grad_enabled():
        raise NotImplementedError(
            f"{loss.name} has no create_graph=True with a batch of gradients, as of vectorize=True and "
            "is_grads_batched: use torch.func.jacrev, or vectorize=False"
        )


class _SummedLoss(torch.autograd.Function):
    """The function returns sum_i losses_i / normalizer, computes the gradient beside it, and returns the hits."""

    @staticmethod
    def forward(ctx: Any, loss: Loss, *tensors: Any) -> tuple[Tensor, Tensor | None]:
        compute = ops.way_to("_with_gradient", tensors)
        losses, hits, ctx.gradient = compute(loss, *tensors)
        ctx.save_for_backward(*tensors)
        ctx.loss = loss
        return losses.sum(), hits

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        _check_batch(ctx.loss, upstream)
        # The stored gradient is given away, so a second backward has to compute its own, and so has
        # each of a batch of backwards; and it has no history, which create_graph asks for, and no tangent.
        # A subclass of Tensor may hold more than one number, each of which would be multiplied in.
        gradient, ctx.gradient = ctx.gradient, None
        single = type(upstream) is Tensor and not is_legacy_batchedtensor(upstream)
        if (
            gradient is None
            or torch.is_grad_enabled()
            or not single
            or forward_ad._current_level >= 0
        ):
            of_losses = upstream.expand(ctx.saved_tensors[1].shape)
            gradient = _Gradient.apply(ctx.loss, *ctx.saved_tensors, of_losses)  # type: ignore[no-untyped-call]
        elif ops.is_plain((gradient, upstream)):
            backends.scale_(gradient, upstream)
        else:
            torch.ops.triton_topk.scale_(gradient, upstream)
        return None, gradient, *_NO_GRADIENTS


def _set_up(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Keep the inputs for the derivatives."""
    ctx.loss, *tensors = inputs
    ctx.save_for_backward(*tensors)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)
        # so that an argument without a tangent has None
        ctx.set_materialize_grads(False)


def _check_tangents(loss: Loss, tangents: Batch) -> None:
    """Raise an error where a tangent would be dropped."""
    constants = {
        "weight": tangents.weight,
        "margin": tangents.margins,
        "normalizer": tangents.normalizer,
    }
    for argument, tangent in constants.items():
        if tangent is not None:
            raise NotImplementedError(
                f"{argument} must have no tangent: {loss.name} has a forward-mode derivative in scores only"
            )
    if torch._functorch.eager_transforms.JVP_NESTING > 1:
        raise NotImplementedError(
            f"{loss.name} has no forward-mode derivative of a forward-mode derivative: "
            "take one of them in reverse mode, as in jacfwd(jacrev(f))"
        )


class _Losses(torch.autograd.Function):
    """The function returns the losses (N,) and the hits, and keeps nothing for the gradient but the inputs."""

    @staticmethod
    def forward(loss: Loss, *tensors: Any) -> tuple[Tensor, Tensor | None]:
        losses, hits = ops.way_to("", tensors)(loss, *tensors)
        # an operator has no None to return
        return losses, None if loss.hits is None else hits

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return None, None, *_NO_GRADIENTS
        _check_batch(ctx.loss, upstream)
        gradient = _Gradient.apply(ctx.loss, *ctx.saved_tensors, upstream)  # type: ignore[no-untyped-call]
        return None, gradient, *_NO_GRADIENTS

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> tuple[Tensor, None]:
        _check_tangents(ctx.loss, Batch(*tangents))
        scores, labels, *others = ctx.saved_tensors
        dtype = accumulation_dtype(scores.dtype)
        upstream = scores.new_ones(labels.shape, dtype=dtype)
        # in float32 if it is to be in float16, in which small entries would be 0
        gradient = _Gradient.apply(ctx.loss, scores.to(dtype), labels, *others, upstream)  # type: ignore[no-untyped-call]
        # what has no gradient, as a masked class, counts for nothing whatever its tangent is
        products = torch.where(gradient == 0, 0, gradient * tangents[0].to(dtype))
        return products.sum(1), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], loss: Loss, *tensors: Any) -> tuple[Any, Any]:
        batches = Batch(*batches_first(info, in_dims[1:], tensors))
        batch, factor = merge(batches, loss.ignore_index)
        losses, hits = _Losses.apply(loss, *batch)  # type: ignore[no-untyped-call]
        losses = losses.reshape(factor.shape) * factor
        if hits is None:
            return (losses, None), (0, None)
        return (losses, hits.reshape(info.batch_size, -1, 2)), (0, 0)


class _Gradient(torch.autograd.Function):
    """The function returns the gradient (N, C) of sum_i upstream_i losses_i."""

    @staticmethod
    def forward(loss: Loss, *tensors: Any) -> Tensor:
        gradient: Tensor = ops.way_to("_gradient", tensors)(loss, *tensors)
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return None, None, *_NO_GRADIENTS, None
        _check_batch(ctx.loss, upstream)
        of_scores, of_upstream = pull_back_gradient(upstream, ctx.loss, *ctx.saved_tensors)
        return None, of_scores, *_NO_GRADIENTS, of_upstream

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        *of_batch, upstream = tangents
        _check_tangents(ctx.loss, Batch(*of_batch))
        scores, tensors = of_batch[0], ctx.saved_tensors
        out: Any = 0
        if scores is not None:
            # the Hessian times a vector, which is the vector times the Hessian
            out, _ = pull_back_gradient(scores, ctx.loss, *tensors)
        if upstream is not None:
            out = out + _Gradient.apply(ctx.loss, *tensors[:-1], upstream)  # type: ignore[no-untyped-call]
        return out

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], loss: Loss, *tensors: Any) -> tuple[Tensor, int]:
        *of_batches, upstream = batches_first(info, in_dims[1:], tensors)
        batches = Batch(*of_batches)
        batch, factor = merge(batches, loss.ignore_index)
        of_rows = (upstream * factor).reshape(-1)
        gradient = _Gradient.apply(loss, *batch, of_rows)  # type: ignore[no-untyped-call]
        return gradient.reshape(batches.scores.shape), 0

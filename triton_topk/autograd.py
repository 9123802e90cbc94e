"""The gradient of a loss, at the price of reading the scores once and writing the gradient once.

Traffic, in units of one read or write of the scores.  Where the loss is reduced to a number, the forward
writes the gradient beside the losses (read 1, write 1) and the backward multiplies it in place by
the incoming number, which on a GPU moves nothing when that is 1: 2 in all, 4 for a scaled loss.
Otherwise (reduction "none", float16 whose small gradients only a scaled loss keeps from flushing to zero,
a second backward, torch.compile, torch.func) the backward computes the gradient from the scores: 3 in all,
and nothing of the scores' size is held between the two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad

from triton_topk import batches, ops
from triton_topk.backends import concerns_kernels_only, kernels
from triton_topk.differentiable import pull_back_gradient
from triton_topk.labels import sum_of_weights
from triton_topk.parameters import Loss
from triton_topk.tensors import accumulation_dtype

_ops = torch.ops.triton_topk
_NO_GRADIENTS = (None,) * 6  # of all inputs but the scores


def _run(suffix: str, name: str, loss: Loss, *tensors: Tensor | None) -> Any:
    """What the operator `name + suffix` computes, by way of it where somebody has a say in that."""
    if concerns_kernels_only(*tensors):
        return ops.FUNCTIONS[suffix](loss, *tensors)
    # Operators refuse forward mode, which for all they can see is on while another thread is in torch.func.jvp.
    with forward_ad._set_fwd_grad_enabled(False):
        return getattr(_ops, name + suffix)(*tensors, *loss)


def _is_observed() -> bool:
    """Whether a gradient that is kept between forward and backward would be in the way.

    A transform of torch.func and forward mode are given what has been recorded; and who packs saved tensors, as
    activation checkpointing does, wants none of the size of the scores.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    )


def _check_batch(name: str, upstream: Tensor) -> None:
    """An error where PyTorch would drop the graph of a batch of gradients without a word."""
    if is_legacy_batchedtensor(upstream) and torch.is_grad_enabled():
        raise NotImplementedError(
            f"{name} has no create_graph=True with a batch of gradients, as of vectorize=True and is_grads_batched: "
            "use torch.func.jacrev, or vectorize=False"
        )


class _Sum(torch.autograd.Function):
    """sum_i losses_i / normalizer, with the gradient computed beside the losses; and the hits."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor | None]:
        *tensors, name, loss = inputs
        losses, hits, ctx.gradient = _run("_with_gradient", name, loss, *tensors)
        ctx.save_for_backward(*tensors)
        ctx.name, ctx.loss = name, loss
        return losses.sum(), hits

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        _check_batch(ctx.name, upstream)
        # The stored gradient is given away, so a second backward has to compute its own, and so has
        # each of a batch of backwards; and it has no history, which create_graph asks for, and no tangent.
        # A subclass of Tensor may hold several numbers, each of which would be multiplied in.
        gradient, ctx.gradient = ctx.gradient, None
        single = type(upstream) is Tensor and not is_legacy_batchedtensor(upstream)
        if (
            gradient is None
            or torch.is_grad_enabled()
            or not single
            or forward_ad._current_level >= 0
        ):
            of_losses = upstream.expand(ctx.saved_tensors[1].shape)
            gradient = _Gradient.apply(*ctx.saved_tensors, of_losses, ctx.name, ctx.loss)  # type: ignore[no-untyped-call]
        elif concerns_kernels_only(gradient, upstream):
            kernels().scale_(gradient, upstream)
        else:
            _ops.scale_(gradient, upstream)
        return gradient, *_NO_GRADIENTS


def _set_up(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Keep the inputs for the derivatives."""
    *tensors, ctx.name, ctx.loss = inputs
    ctx.save_for_backward(*tensors)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)
        # so that an argument without a tangent has None
        ctx.set_materialize_grads(False)


def _check_tangents(name: str, weight: Any, margin: Any, normalizer: Any) -> None:
    """An error where a tangent would be dropped."""
    tangents = {"weight": weight, "margin": margin, "normalizer": normalizer}
    for argument, tangent in tangents.items():
        if tangent is not None:
            raise NotImplementedError(
                f"{argument} must have no tangent: {name} has a forward-mode derivative in scores only"
            )
    if torch._functorch.eager_transforms.JVP_NESTING > 1:
        raise NotImplementedError(
            f"{name} has no forward-mode derivative of a forward-mode derivative: "
            "take one of them in reverse mode, as in jacfwd(jacrev(f))"
        )


class _Losses(torch.autograd.Function):
    """The losses (N,) and the hits, with nothing kept for the gradient but the inputs."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor | None]:
        *tensors, name, loss = inputs
        losses, hits = _run("", name, loss, *tensors)
        # an operator has no None to return
        return losses, None if loss.hits is None else hits

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return None, *_NO_GRADIENTS
        _check_batch(ctx.name, upstream)
        gradient = _Gradient.apply(*ctx.saved_tensors, upstream, ctx.name, ctx.loss)  # type: ignore[no-untyped-call]
        return gradient, *_NO_GRADIENTS

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        _check_tangents(ctx.name, *tangents[2:5])
        scores, labels, *others = ctx.saved_tensors
        dtype = accumulation_dtype(scores.dtype)
        upstream = scores.new_ones(labels.shape, dtype=dtype)
        # in float32 if it is to be in float16, in which small entries would be 0
        gradient = _Gradient.apply(scores.to(dtype), labels, *others, upstream, ctx.name, ctx.loss)  # type: ignore[no-untyped-call]
        # what has no gradient, as a masked class, counts for nothing whatever its tangent is
        products = torch.where(gradient == 0, 0, gradient * tangents[0].to(dtype))
        return products.sum(1), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        *tensors, name, loss = inputs
        rows = batches.rows(loss.ignore_index, *batches.first(info, in_dims, tensors))
        losses, hits = _Losses.apply(*rows.tensors, name, loss)  # type: ignore[no-untyped-call]
        losses = losses.reshape(rows.factor.shape) * rows.factor
        if hits is None:
            return (losses, None), (0, None)
        return (losses, hits.reshape(info.batch_size, -1, 2)), (0, 0)


class _Gradient(torch.autograd.Function):
    """The gradient (N, C) of sum_i upstream_i losses_i."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        *tensors, name, loss = inputs
        gradient: Tensor = _run("_gradient", name, loss, *tensors)
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return None, *_NO_GRADIENTS, None
        _check_batch(ctx.name, upstream)
        of_scores, of_upstream = pull_back_gradient(upstream, ctx.loss, *ctx.saved_tensors)
        return of_scores, None, None, None, None, of_upstream, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        scores, upstream = tangents[0], tangents[5]
        _check_tangents(ctx.name, *tangents[2:5])
        tensors = ctx.saved_tensors
        out: Any = 0
        if scores is not None:
            # the Hessian times a vector, which is the vector times the Hessian
            out, _ = pull_back_gradient(scores, ctx.loss, *tensors)
        if upstream is not None:
            out = out + _Gradient.apply(*tensors[:-1], upstream, ctx.name, ctx.loss)  # type: ignore[no-untyped-call]
        return out

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        *tensors, name, loss = inputs
        *tensors, upstream = batches.first(info, in_dims, tensors)
        rows = batches.rows(loss.ignore_index, *tensors)
        of_rows = (upstream * rows.factor).reshape(-1)
        gradient = _Gradient.apply(*rows.tensors, of_rows, name, loss)  # type: ignore[no-untyped-call]
        return gradient.reshape(tensors[0].shape), 0


def apply(
    name: str,
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    margins: Tensor | None,
    normalizer: Tensor | None,
    reduction: str,
    loss: Loss,
) -> tuple[Tensor, Tensor | None]:
    """The losses (N,) of scores (N, C), or their reduction, differentiable in the scores; and the hits (N, 2)."""
    if reduction == "mean" and normalizer is None:
        dtype = accumulation_dtype(scores.dtype)
        normalizer = sum_of_weights(labels, weight, dtype, loss.ignore_index)
    inputs = scores, labels, weight, margins, normalizer
    differentiable = scores.requires_grad and torch.is_grad_enabled()
    recorded = torch.compiler.is_compiling() or torch._C._is_tracing()
    observed = not recorded and _is_observed()
    summed = reduction != "none"
    out: Tensor
    hits: Tensor | None
    if recorded:
        out, hits = getattr(_ops, name)(*inputs, *loss)
    elif differentiable and summed and not observed and scores.dtype != torch.float16:
        out, hits = _Sum.apply(*inputs, name, loss)  # type: ignore[no-untyped-call]
    elif differentiable or observed:
        out, hits = _Losses.apply(*inputs, name, loss)  # type: ignore[no-untyped-call]
    else:
        out, hits = _run("", name, loss, *inputs)
    # a number already where the gradient is kept
    if summed and out.dim():
        out = out.sum()
    if summed and normalizer is not None and (recorded or labels.shape[0] == 0):
        # Without a row there is no loss that was divided, by 0 in a mean.  A graph serves any number of rows.
        # The zero is a tensor, since inductor folds 0 / x.
        out = out + torch.zeros_like(normalizer) / normalizer
    return out, hits

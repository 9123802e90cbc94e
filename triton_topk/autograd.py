"""The gradient of a loss costs reading the scores once and writing the gradient once.

Traffic, in units of one read or write of the scores.  Where the loss is reduced to a number, the forward
writes the gradient beside the losses (read 1, write 1) and the backward multiplies it in place by
the incoming number, which on a GPU moves no data when that is 1: 2 in all, 4 for a scaled loss.
Otherwise (reduction "none", float16 whose small gradients only a scaled loss keeps from flushing to zero,
a second backward, torch.func, and torch.compile on a GPU, which cannot multiply in place) the backward computes
the gradient from the scores: 3 in all, and no tensor of the scores' size is held between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from triton_topk import backends, ops
from triton_topk.batch import N_TENSORS, Batch, accumulation_dtype, with_masked_class
from triton_topk.double_backward import pull_back_gradient
from triton_topk.losses import Loss
from triton_topk.vmap import batches_first, merge

_NO_GRADIENTS = (None,) * (N_TENSORS - 1)  # of all tensors of a batch but the scores


def function(
    batch: Batch, loss: Loss, *, summed: bool, recorded: bool, plain: bool
) -> tuple[Callable[..., tuple[Tensor, Tensor | None]], tuple[Any, ...]]:
    """Return the function that serves this call, and its arguments.

    It returns the losses (N,), or perhaps their sum if that is what is wanted, differentiable in the scores; and the
    hits (N, 2) or None.
    """
    scores = batch.scores
    differentiable = scores.requires_grad and torch.is_grad_enabled()
    keeps_gradient = differentiable and summed and scores.dtype != torch.float16
    if recorded:
        # On a GPU reading the scores again is faster than scaling what was kept; an exported program may be for
        # evaluation.  PyTorch 2.11 compiles is_exporting() as True.
        compiled = is_compiling() and not torch.compiler._is_exporting_flag
        kept = keeps_gradient and compiled and scores.device.type == "cpu"
        return ops.call_operator, ("_with_gradient" if kept else "", loss, batch)
    if is_observed():
        return _ObservedLosses.apply, (loss, batch.complete, *batch.tensors)
    if not differentiable:
        return ops.way_to("", plain), (loss, batch)
    compute = ops.way_to("_with_gradient" if keeps_gradient else "", plain)
    return _Losses.apply, (compute, loss, batch, scores)


class Scores:
    """These are scores that are given; a layer.Layer is asked the same."""

    function = staticmethod(function)
    summarize = staticmethod(ops.summarize)

    def __init__(self, scores: Tensor) -> None:
        self.scores, self.tensors = scores, (scores,)

    def like_scores(self) -> Tensor:
        return self.scores

    def with_masked_class(self) -> Scores:
        return Scores(with_masked_class(self.scores))


def is_observed() -> bool:
    """Return whether a gradient that is kept between forward and backward would be in the way.

    A transform of torch.func and forward mode are given what has been recorded; and who packs saved tensors, as
    activation checkpointing does, wants none of the size of the scores.
    """
    return is_transformed() or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def is_transformed() -> bool:
    """Return whether a transform of torch.func, or forward mode, has a say in the call."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _check_batch(loss: Loss, upstream: Tensor) -> None:
    """Raise an error where PyTorch would drop the graph of a batch of gradients without a word."""
    if is_legacy_batchedtensor(upstream) and torch.is_grad_enabled():
        raise NotImplementedError(
            f"{loss.name} has no create_graph=True with a batch of gradients, as of vectorize=True and "
            "is_grads_batched: use torch.func.jacrev, or vectorize=False"
        )


class _Losses(torch.autograd.Function):
    """The function returns the losses (N,) and the hits, and keeps the inputs.

    Where `compute` gives the gradient of the losses' sum, too, it returns that sum, and keeps the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[..., Any], loss: Loss, batch: Batch, _: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        losses, hits, *gradient = compute(loss, batch)
        ctx.save_for_backward(*batch[:N_TENSORS])
        ctx.loss, ctx.known = loss, batch[N_TENSORS:]
        ctx.gradient = gradient[0] if gradient else None
        # an operator has no None to return
        return losses.sum() if gradient else losses, None if loss.hits is None else hits

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        # The stored gradient is given away, so a second backward has to compute its own, and so has
        # each of a batch of backwards; and it has no history, which create_graph asks for, and no tangent.
        # A subclass of Tensor may hold more than one number, each of which would be multiplied in.
        gradient, ctx.gradient = ctx.gradient, None
        constant = not torch.is_grad_enabled() and forward_ad._current_level < 0
        single = type(upstream) is Tensor and not is_legacy_batchedtensor(upstream)
        if gradient is None or not constant or not single:
            batch = Batch(*ctx.saved_tensors, *ctx.known)
            gradient = gradient_of(ctx.loss, batch, upstream.expand(batch.labels.shape), constant)
        elif ops.is_plain((gradient, upstream)):
            backends.scale_(gradient, upstream)
        else:
            torch.ops.triton_topk.scale_(gradient, upstream)
        return None, None, None, gradient


def gradient_of(loss: Loss, batch: Batch, upstream: Tensor, constant: bool) -> Tensor:
    """Return the gradient (N, C) of sum_i upstream_i losses_i, which has no derivative if it is constant."""
    if constant and ops.is_plain((*batch, upstream)):
        gradient: Tensor = ops.way_to("_gradient", True)(loss, batch, upstream)
    else:
        _check_batch(loss, upstream)
        gradient = _Gradient.apply(loss, batch.complete, *batch.tensors, upstream)  # type: ignore[no-untyped-call]
    return gradient


def _set_up(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Keep the inputs for the derivatives."""
    ctx.loss, ctx.complete, *tensors = inputs
    ctx.save_for_backward(*tensors)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)
        # so that an argument without a tangent has None
        ctx.set_materialize_grads(False)


def _check_tangents(loss: Loss, tangents: Batch) -> None:
    """Raise an error where a tangent would be dropped."""
    constants = {
        "weight": (tangents.weight, tangents.sample_weight),
        "margin": (tangents.margins,),
        "normalizer": (tangents.normalizer,),
    }
    for argument, given in constants.items():
        if any(tangent is not None for tangent in given):
            raise NotImplementedError(
                f"{argument} must have no tangent: {loss.name} has a forward-mode derivative in scores only"
            )
    if torch._functorch.eager_transforms.JVP_NESTING > 1:
        raise NotImplementedError(
            f"{loss.name} has no forward-mode derivative of a forward-mode derivative: "
            "take one of them in reverse mode, as in jacfwd(jacrev(f))"
        )


class _ObservedLosses(torch.autograd.Function):
    """The function returns the losses (N,) and the hits, and keeps nothing for the gradient but the inputs."""

    @staticmethod
    def forward(loss: Loss, complete: bool | None, *tensors: Any) -> tuple[Tensor, Tensor | None]:
        batch = Batch(*tensors)._replace(complete=complete)
        losses, hits = ops.way_to("", ops.is_plain(tensors))(loss, batch)
        # an operator has no None to return
        return losses, None if loss.hits is None else hits

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return None, None, None, *_NO_GRADIENTS
        _check_batch(ctx.loss, upstream)
        gradient = _Gradient.apply(ctx.loss, ctx.complete, *ctx.saved_tensors, upstream)  # type: ignore[no-untyped-call]
        return None, None, gradient, *_NO_GRADIENTS

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *tangents: Any) -> tuple[Tensor, None]:
        _check_tangents(ctx.loss, Batch(*tangents))
        scores, labels, *others = ctx.saved_tensors
        if Batch(*ctx.saved_tensors).summary is not None:
            raise NotImplementedError(
                f"{ctx.loss.name} with a shard has no forward-mode derivative"
            )
        dtype = accumulation_dtype(scores.dtype)
        upstream = scores.new_ones(labels.shape, dtype=dtype)
        # in float32 if it is to be in float16, in which small entries would be 0
        inputs = ctx.loss, ctx.complete, scores.to(dtype), labels, *others, upstream
        gradient = _Gradient.apply(*inputs)  # type: ignore[no-untyped-call]
        # what has no gradient, as a masked class, counts for nothing whatever its tangent is
        products = torch.where(gradient == 0, 0, gradient * tangents[0].to(dtype))
        return products.sum(1), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], loss: Loss, _: Any, *tensors: Any
    ) -> tuple[Any, Any]:
        batches = Batch(*batches_first(info, in_dims[2:], tensors))
        batch, factor = merge(batches, loss.ignore_index)
        losses, hits = _ObservedLosses.apply(loss, None, *batch.tensors)  # type: ignore[no-untyped-call]
        losses = losses.reshape(factor.shape) * factor
        if hits is None:
            return (losses, None), (0, None)
        return (losses, hits.reshape(info.batch_size, -1, 2)), (0, 0)


class _Gradient(torch.autograd.Function):
    """The function returns the gradient (N, C) of sum_i upstream_i losses_i."""

    @staticmethod
    def forward(loss: Loss, complete: bool | None, *tensors: Any) -> Tensor:
        compute = ops.way_to("_gradient", ops.is_plain(tensors))
        batch = Batch(*tensors[:N_TENSORS])._replace(complete=complete)
        gradient: Tensor = compute(loss, batch, *tensors[N_TENSORS:])
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return None, None, None, *_NO_GRADIENTS, None
        _check_batch(ctx.loss, upstream)
        of_scores, of_upstream = pull_back_gradient(upstream, ctx.loss, *ctx.saved_tensors)
        return None, None, of_scores, *_NO_GRADIENTS, of_upstream

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *tangents: Any) -> Any:
        *of_batch, upstream = tangents
        _check_tangents(ctx.loss, Batch(*of_batch))
        scores, tensors = of_batch[0], ctx.saved_tensors
        out: Any = 0
        if scores is not None:
            # the Hessian times a vector, which is the vector times the Hessian
            out, _ = pull_back_gradient(scores, ctx.loss, *tensors)
        if upstream is not None:
            out = out + _Gradient.apply(ctx.loss, ctx.complete, *tensors[:-1], upstream)  # type: ignore[no-untyped-call]
        return out

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], loss: Loss, _: Any, *tensors: Any
    ) -> tuple[Tensor, int]:
        *of_batches, upstream = batches_first(info, in_dims[2:], tensors)
        batches = Batch(*of_batches)
        batch, factor = merge(batches, loss.ignore_index)
        of_rows = (upstream * factor).reshape(-1)
        gradient = _Gradient.apply(loss, None, *batch.tensors, of_rows)  # type: ignore[no-untyped-call]
        return gradient.reshape(batches.scores.shape), 0

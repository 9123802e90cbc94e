"""The losses are operators registered with PyTorch, on batches.

Each loss has the operators `name`, `name_with_gradient`, which computes the gradient of the losses' sum beside them,
and `name_gradient`, for the gradient that autograd sends back.  They take the tensors of a batch and the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn import Parameter

from triton_topk import arguments, summary
from triton_topk.backends import choose, scale_
from triton_topk.batch import N_TENSORS, Batch, accumulation_dtype, check_tensors
from triton_topk.losses import LOSSES, Form, Loss

_BATCH = (
    "Tensor scores, Tensor labels, Tensor? weight, Tensor? sample_weight, Tensor? margins, "
    "Tensor? normalizer, Tensor? summary"
)
_PLAIN = (Tensor, Parameter)
# Operators give no more than the shapes of such tensors.
_has_no_values = attrgetter("is_meta")
_ops = torch.ops.triton_topk


# The functions that the operators compute.


def _losses(loss: Loss, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Return the losses (N,) and, if they are asked for, the hits (N, 2): in the top 1, and in the top k."""
    batch = batch.looked_at(loss.ignore_index)
    out, hits = new_losses(loss, batch.scores)
    choose(batch, loss).run(batch, loss, losses=out, hits=hits)
    return out, hits


def _losses_with_gradient(loss: Loss, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the losses, the hits, and the gradient of the losses' sum."""
    batch = batch.looked_at(loss.ignore_index)
    out, hits = new_losses(loss, batch.scores)
    gradient = _new_gradient(loss, batch.scores)
    choose(batch, loss).run(batch, loss, losses=out, hits=hits, gradient=gradient)
    return out, hits, gradient


def _gradient(loss: Loss, batch: Batch, upstream: Tensor) -> Tensor:
    """Return the gradient of sum_i losses_i upstream_i."""
    batch = batch.looked_at(loss.ignore_index)
    out = _new_gradient(loss, batch.scores)
    # a summary has the form of a loss with hits
    if loss.hits is not None and batch.summary is None:
        loss = replace(loss, hits=None)
    choose(batch, loss).run(batch, loss, upstream=upstream, gradient=out)
    return out


def summary_of(loss: Loss, batch: Batch) -> Tensor:
    """Return the summary of a shard."""
    assert batch.summary is not None
    out = torch.empty_like(batch.summary, memory_format=torch.contiguous_format)
    batch = batch._replace(summary=out).looked_at(loss.ignore_index)
    choose(batch, loss).summarize(batch, loss)
    return out


def _new_summary(_: Loss, *tensors: Any) -> Tensor:
    return torch.empty_like(tensors[N_TENSORS - 1])


def new_losses(loss: Loss, scores: Tensor, *_: Any) -> tuple[Tensor, Tensor | None]:
    n_rows = scores.shape[0]
    out = scores.new_empty(n_rows, dtype=accumulation_dtype(scores.dtype))
    return out, None if loss.hits is None else scores.new_empty((n_rows, 2), dtype=torch.bool)


def _new_losses_with_gradient(loss: Loss, *tensors: Any) -> tuple[Tensor, Tensor | None, Tensor]:
    return *new_losses(loss, *tensors), _new_gradient(loss, *tensors)


def _new_gradient(loss: Loss, scores: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


class _Operator(NamedTuple):
    """An operator of every loss computes a function of the loss, the batch and an upstream gradient (N,)."""

    function: Callable[..., Any]
    like: Callable[..., Any]  # the results without their values, of the loss and the tensors
    tensors: str
    returns: str


# The keys are what their names add to the loss's.
_OPERATORS = {
    "": _Operator(_losses, new_losses, _BATCH, "(Tensor, Tensor)"),
    "_with_gradient": _Operator(
        _losses_with_gradient, _new_losses_with_gradient, _BATCH, "(Tensor, Tensor, Tensor)"
    ),
    "_summary": _Operator(summary_of, _new_summary, _BATCH, "Tensor"),
    "_gradient": _Operator(_gradient, _new_gradient, f"{_BATCH}, Tensor upstream", "Tensor"),
}


def merge(summaries: Tensor, form: Form) -> Tensor:
    """Merge the summaries of shards, of which torch.compile and its like need not see the steps."""
    return (
        summary.merge(summaries, form) if is_plain((summaries,)) else _ops.merge(summaries, *form)
    )


# The way to them: direct, or by an operator.


def is_recorded() -> bool:
    """Return whether the call becomes part of a graph, of torch.compile or torch.jit.trace."""
    return is_compiling() or torch._C._is_tracing()


def is_plain(tensors: Sequence[Any]) -> bool:
    """Return whether a call on these need not be an operator's; the first is a tensor, others may be None or numbers.

    An operator costs more than what it calls.  It is for whoever has a say in the call: torch.compile, torch.jit.trace,
    a dispatch mode (fake tensors, a tracer, a counter), a functorch transform; and for a tensor whose values are not
    those in its memory, where a kernel would read them: a subclass of Tensor, a view that negates, zeros and batches of
    `is_grads_batched`, which have no memory, and on a device without values.
    """
    if (
        is_recorded()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or _has_no_values(tensors[0])
    ):
        return False
    for tensor in tensors:
        if isinstance(tensor, Tensor) and (
            type(tensor) not in _PLAIN
            or tensor.is_neg()
            or tensor._is_zerotensor()
            or is_legacy_batchedtensor(tensor)
        ):
            return False
    return True


def way_to(suffix: str, plain: bool) -> Callable[..., Any]:
    """Return the function of a loss and a batch, or one that calls its operator if the call is not plain."""
    return _OPERATORS[suffix].function if plain else partial(_call_eagerly, suffix)


def summarize(loss: Loss, batch: Batch, recorded: bool, plain: bool) -> Tensor:
    """Return the summary of a shard."""
    way = partial(call_operator, "_summary") if recorded else way_to("_summary", plain)
    summary: Tensor = way(loss, batch)
    return summary


def call_operator(suffix: str, loss: Loss, batch: Batch, *upstream: Tensor) -> Any:
    return getattr(_ops, loss.name + suffix)(*batch.tensors, *upstream, *loss.values)


def _call_eagerly(suffix: str, loss: Loss, batch: Batch, *upstream: Tensor) -> Any:
    # Operators refuse forward mode, which for all they can see is on while another thread is in torch.func.jvp.
    with forward_ad._set_fwd_grad_enabled(False):
        return call_operator(suffix, loss, batch, *upstream)


def _may_have_tangents(tensors: tuple[Any, ...]) -> bool:
    """Return whether there is a tangent.

    Those of torch.func.jvp cannot be seen, only that it runs, in whatever thread.
    """
    if forward_ad._current_level < 0 or not torch._C._is_fwd_grad_enabled():
        return False
    if torch._functorch.eager_transforms.JVP_NESTING > 0:
        return True
    # of the keys that a dispatch mode has left behind, asking for a tangent needs this one
    with torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.ADInplaceOrView, False):
        return any(
            isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None for x in tensors
        )


def as_operator(
    function: Callable[..., Any], loss: type[Loss], n_tensors: int
) -> Callable[..., Any]:
    """Give a function of a loss an operator's arguments, and outputs that are all tensors."""

    def operator(*args: Any) -> Any:
        tensors = args[:n_tensors]
        # PyTorch would drop tangents without a word.  The losses turn forward mode off when they call an operator.
        if _may_have_tangents(tensors):
            raise NotImplementedError(
                "operators of triton_topk, and compiled losses, have no forward-mode derivative"
            )
        out = function(loss.of(args[n_tensors:]), *tensors)
        if isinstance(out, Tensor):
            return out
        return tuple(out[0].new_empty((0, 2), dtype=torch.bool) if x is None else x for x in out)

    return operator


def _of_tensors(function: Callable[..., Any], loss: Loss, *tensors: Any) -> Any:
    """Call a function of a batch with its tensors, which a trace gives without having looked at their shapes."""
    batch, upstream = Batch(*tensors[:N_TENSORS]), tensors[N_TENSORS:]
    check(loss, batch, *upstream)
    return function(loss, batch, *upstream)


def check(loss: Loss, batch: Batch, upstream: Tensor | None = None) -> None:
    """Raise an error where what is read of a tensor would not be in it."""
    scores, labels, weight, sample_weight, margins, normalizer, numbers = batch.tensors
    n_classes = check_tensors(scores, labels, (weight, None), normalizer=normalizer)
    if "k" in loss.parameters() and numbers is None:
        arguments.k(loss.k, n_classes)  # type: ignore[attr-defined]
    if numbers is not None and weight is not None:
        # labels of other shards would be read beyond it
        raise ValueError(
            "weight must be None with a summary, which has sample_weight, got a Tensor"
        )
    rows = scores.shape[:1]
    for name, tensor, shape in (
        ("labels", labels, rows),
        ("sample_weight", sample_weight, rows),
        ("margins", margins, (*rows, batch.n_classes)),
        ("summary", numbers, (summary.numbers(loss.form), *rows)),
        ("upstream", upstream, rows),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")


def _register(library: torch.library.Library, loss: type[Loss]) -> None:
    """Register the operators of a loss, and the derivative of the losses."""
    for suffix, (function, like, tensors, returns) in _OPERATORS.items():
        name, n_tensors = loss.name + suffix, len(tensors.split(","))
        library.define(f"{name}({tensors}, {loss.schema()}) -> {returns}")
        computed = partial(_of_tensors, function)
        for f, key in ((computed, "CompositeExplicitAutograd"), (like, "Meta")):
            library.impl(name, as_operator(f, loss, n_tensors), key)

    n_parameters = len(loss.parameters())

    def save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:N_TENSORS])
        ctx.loss = loss.of(inputs[N_TENSORS:])

    def first_derivative(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        of_scores = call_operator("_gradient", ctx.loss, Batch(*ctx.saved_tensors), upstream)
        return of_scores, *[None] * (N_TENSORS - 1 + n_parameters)

    def save_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        gradient = output[2]
        ctx.mark_non_differentiable(gradient)
        ctx.save_for_backward(gradient)

    def kept_derivative(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        of_scores = (gradient * upstream.unsqueeze(1)).to(gradient.dtype)
        return of_scores, *[None] * (N_TENSORS - 1 + n_parameters)

    # autograd.py has the derivative of the gradient; torch.compile has none of it.
    for suffix, derivative, save in (
        ("", first_derivative, save_inputs),
        ("_with_gradient", kept_derivative, save_gradient),
    ):
        torch.library.register_autograd(
            f"triton_topk::{loss.name}{suffix}", derivative, setup_context=save, lib=library
        )


# What an earlier import of the package has registered stays, since compiled graphs hold on to it.
if not hasattr(_ops, "scale_"):
    _library = torch.library.Library("triton_topk", "DEF")
    for _loss in LOSSES.values():
        _register(_library, _loss)
    _library.define("scale_(Tensor(a!) gradient, Tensor factor) -> ()")
    _library.impl("scale_", scale_, "CompositeExplicitAutograd")
    _library.impl("scale_", lambda *_: None, "Meta")
    _library.define(
        "merge(Tensor summaries, int k, int top, int degree, float rate, str total) -> Tensor"
    )
    _library.impl(
        "merge", lambda x, *form: summary.merge(x, Form(*form)), "CompositeExplicitAutograd"
    )
    _library.impl("merge", lambda x, *_: torch.empty_like(x[0]), "Meta")

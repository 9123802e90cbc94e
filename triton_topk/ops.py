"""Registered operators, the choice of a backend, and the autograd of the losses.

Traffic, in units of one read or write of the scores.  Where the loss is reduced to a number, the forward
writes the gradient beside the losses (read 1, write 1) and the backward multiplies it in place by
the incoming number, which on a GPU moves nothing when that is 1: 2 in all, 4 for a scaled loss.
Otherwise (reduction "none", float16 whose small gradients only a scaled loss keeps from flushing to zero,
a second backward, torch.compile) the backward computes the gradient from the scores: 3 in all,
and nothing of the scores' size is held between the two.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache, lru_cache
from types import ModuleType, NoneType
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from triton_topk import eager
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM, SmoothSVMLq

FUSED_MAX_K = 16
FUSED_MAX_DEGREE = 20

# The operators `name`, `name_with_gradient` and `name_gradient` of each loss.
_LOSSES: dict[str, type[Loss]] = {
    "smooth_svm": SmoothSVM,
    "hard_svm": HardSVM,
    "lq_loss": Lq,
    "smooth_svm_lq": SmoothSVMLq,
}
_library = torch.library.Library("triton_topk", "DEF")
_ops = torch.ops.triton_topk


def _schema(parameters: type[Loss]) -> str:
    """The parameters of a loss in the language of operator schemas."""

    def spell(annotation: Any) -> str:
        optional = NoneType in get_args(annotation)
        base = get_args(annotation)[0] if optional else annotation
        return f"{base.__name__}{'?' if optional else ''}"

    return ", ".join(f"{spell(a)} {name}" for name, a in get_type_hints(parameters).items())


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _new_losses(scores: Tensor) -> Tensor:
    return scores.new_empty(scores.shape[0], dtype=accumulation_dtype(scores.dtype))


def _new_gradient(scores: Tensor) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


@cache
def _kernels() -> ModuleType:
    # Triton takes a while to import, is not everywhere, and must not be needed by the eager backend.
    from triton_topk.kernels import launch

    return launch


@cache
def _interpreting() -> bool:
    # Triton, too, looks once.
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _obstacle_to_triton(tensor: Tensor) -> str | None:
    """Why kernels cannot run on this tensor, or None."""
    if not (tensor.is_cuda or _interpreting()):
        return (
            "needs scores on a GPU, or TRITON_INTERPRET=1 in the environment, "
            f"got scores on {tensor.device}"
        )
    if not _has_triton():
        return "needs the package triton, which is not installed"
    return None


# typed: losses with equal parameters are equal as tuples
@lru_cache(maxsize=1024, typed=True)
def _obstacle_to_kernel(loss: Loss, n: int, dtype: torch.dtype) -> str | None:
    """Why the kernel cannot compute this loss, or None."""
    if isinstance(loss, Lq):
        return None
    order = None if isinstance(loss, HardSVM) else loss.order
    degree = loss.k if order is None else loss.k + order - 1
    if loss.k > FUSED_MAX_K or degree > FUSED_MAX_DEGREE:
        return (
            f"supports k <= {FUSED_MAX_K} and k + order - 1 <= {FUSED_MAX_DEGREE}, "
            f"got k={loss.k}, order={order}"
        )
    if not _kernels().in_range(loss, n, dtype):
        return f"cannot hold C={n} classes for k={loss.k}"
    return None


def _uses_triton(scores: Tensor, loss: Loss) -> bool:
    """The choice of a backend; ValueError where an explicit one cannot be had."""
    if loss.backend == "eager":
        return False
    obstacle = _obstacle_to_triton(scores)
    if obstacle is None:
        obstacle = _obstacle_to_kernel(loss, scores.shape[1], scores.dtype)
    if loss.backend == "triton" and obstacle is not None:
        raise ValueError(f"backend='triton' {obstacle}")
    return obstacle is None


def _concerns_kernels_only(tensor: Tensor) -> bool:
    """Whether a call on this tensor need not be an operator's.

    That costs more than what it calls, and is for who has a say in it: torch.compile, a dispatch mode (fake tensors, a
    tracer, a counter), a subclass of Tensor, a functorch transform, a device without kernels.
    """
    return (
        not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, Parameter)
        and _obstacle_to_triton(tensor) is None
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
    )


def _check_labels(labels: Tensor, n_classes: int, ignore_index: int) -> None:
    """IndexError for a label that is no class, on the CPU; on a GPU asking would wait for it."""
    if labels.device.type != "cpu" or labels.numel() == 0:
        return
    lowest, highest = labels.aminmax()
    if lowest.item() >= 0 and highest.item() < n_classes:
        return
    wrong = ((labels < 0) | (labels >= n_classes)) & (labels != ignore_index)
    if wrong.any():
        raise IndexError(
            f"labels must be in [0, {n_classes}) or ignore_index={ignore_index}, "
            f"got {labels[wrong][0].item()}"
        )


def _run(scores: Tensor, labels: Tensor, loss: Loss, **tensors: Tensor | None) -> None:
    _check_labels(labels, scores.shape[1], loss.ignore_index)
    run = _kernels().run if _uses_triton(scores, loss) else eager.run
    run(scores, labels, loss, **tensors)


def _losses(
    loss: Loss, scores: Tensor, labels: Tensor, weight: Tensor | None, normalizer: Tensor | None
) -> Tensor:
    losses = _new_losses(scores)
    _run(scores, labels, loss, weight=weight, normalizer=normalizer, losses=losses)
    return losses


def _losses_with_gradient(
    loss: Loss, scores: Tensor, labels: Tensor, weight: Tensor | None, normalizer: Tensor | None
) -> tuple[Tensor, Tensor]:
    losses, gradient = _new_losses(scores), _new_gradient(scores)
    _run(
        scores,
        labels,
        loss,
        weight=weight,
        normalizer=normalizer,
        losses=losses,
        gradient=gradient,
    )
    return losses, gradient


def _gradient(
    loss: Loss,
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    normalizer: Tensor | None,
    upstream: Tensor,
) -> Tensor:
    gradient = _new_gradient(scores)
    _run(
        scores,
        labels,
        loss,
        weight=weight,
        normalizer=normalizer,
        upstream=upstream,
        gradient=gradient,
    )
    return gradient


def _scale_(gradient: Tensor, factor: Tensor) -> None:
    if _obstacle_to_triton(gradient) is None:
        _kernels().scale_(gradient, factor)
    elif gradient.device.type != "cpu" or factor.item() != 1:
        gradient.mul_(factor)


def _normalizer(
    labels: Tensor,
    weight: Tensor | None,
    dtype: torch.dtype,
    ignore_index: int,
    backend: str | None,
) -> Tensor:
    if backend != "eager" and _obstacle_to_triton(labels) is None:
        normalizer: Tensor = _kernels().sum_of_weights(labels, weight, dtype, ignore_index)
        return normalizer
    return eager.sum_of_weights(labels, weight, dtype, ignore_index)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    scores, labels, weight, normalizer, *loss = inputs
    ctx.save_for_backward(scores, labels, weight, normalizer)
    ctx.loss = loss


def _register(name: str, parameters: type[Loss]) -> None:
    def define(suffix: str, tensors: str, returns: str, function: Any, fake: Any) -> None:
        n_tensors = len(tensors.split(","))

        def unpacked(*args: Any) -> Any:
            return function(parameters(*args[n_tensors:]), *args[:n_tensors])

        _library.define(f"{name}{suffix}({tensors}, {_schema(parameters)}) -> {returns}")
        _library.impl(f"{name}{suffix}", unpacked, "CompositeExplicitAutograd")
        torch.library.register_fake(f"triton_topk::{name}{suffix}", fake, lib=_library)

    inputs = "Tensor scores, Tensor labels, Tensor? weight, Tensor? normalizer"
    define("", inputs, "Tensor", _losses, lambda scores, *_: _new_losses(scores))
    define(
        "_with_gradient",
        inputs,
        "(Tensor, Tensor)",
        _losses_with_gradient,
        lambda scores, *_: (_new_losses(scores), _new_gradient(scores)),
    )
    define(
        "_gradient",
        f"{inputs}, Tensor upstream",
        "Tensor",
        _gradient,
        lambda scores, *_: _new_gradient(scores),
    )

    def recompute(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient = getattr(_ops, f"{name}_gradient")(*ctx.saved_tensors, upstream, *ctx.loss)
        return gradient, *[None] * (3 + len(ctx.loss))

    def no_second_derivative(ctx: Any, upstream: Tensor) -> None:
        raise NotImplementedError(f"{name} can be differentiated once, not twice")

    torch.library.register_autograd(
        f"triton_topk::{name}", recompute, setup_context=_save_inputs, lib=_library
    )
    torch.library.register_autograd(
        f"triton_topk::{name}_gradient", no_second_derivative, lib=_library
    )


for _name, _parameters in _LOSSES.items():
    _register(_name, _parameters)
_library.define("scale_(Tensor(a!) gradient, Tensor factor) -> ()")
_library.impl("scale_", _scale_, "CompositeExplicitAutograd")
torch.library.register_fake("triton_topk::scale_", lambda *_: None, lib=_library)
_library.define(
    "normalizer(Tensor labels, Tensor? weight, ScalarType dtype, int ignore_index, str? backend) -> Tensor"
)
_library.impl("normalizer", _normalizer, "CompositeExplicitAutograd")
torch.library.register_fake(
    "triton_topk::normalizer",
    lambda labels, weight, dtype, *_: labels.new_empty((), dtype=dtype),
    lib=_library,
)


class _Sum(torch.autograd.Function):
    """sum_i losses_i / normalizer, with the gradient computed beside the losses."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        normalizer: Tensor | None,
        name: str,
        loss: Loss,
    ) -> Tensor:
        inputs = scores, labels, weight, normalizer
        if _concerns_kernels_only(scores):
            losses, ctx.gradient = _losses_with_gradient(loss, *inputs)
        else:
            losses, ctx.gradient = getattr(_ops, f"{name}_with_gradient")(*inputs, *loss)
        ctx.save_for_backward(*inputs)
        ctx.name, ctx.loss = name, loss
        total: Tensor = losses.sum()
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # The stored gradient is given away, so a second backward has to compute its own; and it has no
        # history, so create_graph has to meet the operator that says what it cannot do.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None and not torch.is_grad_enabled():
            scale = _scale_ if _concerns_kernels_only(gradient) else _ops.scale_
            scale(gradient, upstream)
        else:
            scores, labels, weight, normalizer = ctx.saved_tensors
            gradient = getattr(_ops, f"{ctx.name}_gradient")(
                scores, labels, weight, normalizer, upstream.expand(labels.shape), *ctx.loss
            )
        return gradient, None, None, None, None, None


def apply(
    name: str,
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    reduction: str,
    loss: Loss,
) -> Tensor:
    """The losses (N,) of scores (N, C), or their reduction; differentiable in the scores."""
    # The operators have no formula for tangents and would drop them without a word.
    if forward_ad.unpack_dual(scores).tangent is not None:
        raise NotImplementedError(f"{name} has no forward-mode derivative")
    normalizer = None
    if reduction == "mean":
        normalizer = normalizer_of(labels, weight, scores.dtype, loss.ignore_index, loss.backend)
    differentiable = scores.requires_grad and torch.is_grad_enabled()
    summed = reduction != "none"
    if (
        differentiable
        and summed
        and scores.dtype != torch.float16
        and not torch.compiler.is_compiling()
    ):
        total: Tensor = _Sum.apply(scores, labels, weight, normalizer, name, loss)  # type: ignore[no-untyped-call]
    else:
        if not differentiable and _concerns_kernels_only(scores):
            losses = _losses(loss, scores, labels, weight, normalizer)
        else:
            losses = getattr(_ops, name)(scores, labels, weight, normalizer, *loss)
        if not summed:
            return losses
        total = losses.sum()
    if normalizer is not None and labels.shape[0] == 0:
        # no loss that could have been divided by 0
        total = total / normalizer
    return total


def normalizer_of(
    labels: Tensor,
    weight: Tensor | None,
    scores_dtype: torch.dtype,
    ignore_index: int,
    backend: str | None,
) -> Tensor:
    """The sum of the weights of the labels (N,) that count: the divisor of reduction "mean"."""
    dtype = accumulation_dtype(scores_dtype)
    of = _normalizer if _concerns_kernels_only(labels) else _ops.normalizer
    normalizer: Tensor = of(labels, weight, dtype, ignore_index, backend)
    return normalizer

"""The losses as operators registered with PyTorch, on rows of scores.

Of each loss there are `name`, `name_with_gradient`, of their sum, beside the losses, and `name_gradient`, for the
gradient that autograd sends back.  They take its parameters and

    scores (N, C), labels (N,) int64, weight (C,) or None, margins (N, C) or None, normalizer () or None

margins: those of each row for each label that it could have, beside the margin among the parameters.  The losses are
divided by the normalizer.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor
from torch.autograd import forward_ad

from triton_topk import eager
from triton_topk.backends import kernels, obstacle_to_triton, uses_triton
from triton_topk.parameters import HardSVM, Loss, Lq, SmoothSVM, SmoothSVMLq
from triton_topk.tensors import accumulation_dtype

_LOSSES: dict[str, type[Loss]] = {
    "smooth_svm": SmoothSVM,
    "hard_svm": HardSVM,
    "lq_loss": Lq,
    "smooth_svm_lq": SmoothSVMLq,
}
_INPUTS = "Tensor scores, Tensor labels, Tensor? weight, Tensor? margins, Tensor? normalizer"
_N_INPUTS = 5
_ops = torch.ops.triton_topk


def _new_losses(scores: Tensor) -> Tensor:
    return scores.new_empty(scores.shape[0], dtype=accumulation_dtype(scores.dtype))


def _new_hits(scores: Tensor, loss: Loss) -> Tensor | None:
    if loss.hits is None:
        return None
    return scores.new_empty((scores.shape[0], 2), dtype=torch.bool)


def _new_gradient(scores: Tensor) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


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


def _run(
    loss: Loss,
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    margins: Tensor | None,
    normalizer: Tensor | None,
    **others: Tensor | None,
) -> None:
    _check_labels(labels, scores.shape[1], loss.ignore_index)
    run = kernels().run if uses_triton(scores, loss) else eager.run
    run(scores, labels, loss, weight=weight, margins=margins, normalizer=normalizer, **others)


def _losses(loss: Loss, scores: Tensor, *inputs: Any) -> tuple[Tensor, Tensor | None]:
    """The losses (N,) and, if they are asked for, the hits (N, 2): in the top 1, and in the top k."""
    out, hits = _new_losses(scores), _new_hits(scores, loss)
    _run(loss, scores, *inputs, losses=out, hits=hits)
    return out, hits


def _losses_with_gradient(
    loss: Loss, scores: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The same, and the gradient of the losses' sum."""
    out, hits, gradient = _new_losses(scores), _new_hits(scores, loss), _new_gradient(scores)
    _run(loss, scores, *inputs, losses=out, hits=hits, gradient=gradient)
    return out, hits, gradient


def _gradient(loss: Loss, scores: Tensor, *inputs: Any) -> Tensor:
    gradient = _new_gradient(scores)
    *others, upstream = inputs
    _run(loss._replace(hits=None), scores, *others, upstream=upstream, gradient=gradient)
    return gradient


# By what their names add to the loss's.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "": _losses,
    "_with_gradient": _losses_with_gradient,
    "_gradient": _gradient,
}


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor, a number."""
    if obstacle_to_triton(gradient) is None:
        kernels().scale_(gradient, factor)
    elif gradient.device.type != "cpu" or factor.item() != 1:
        gradient.mul_(factor)


def _schema(parameters: type[Loss]) -> str:
    """The parameters of a loss in the language of operator schemas."""

    def spell(annotation: Any) -> str:
        optional = NoneType in get_args(annotation)
        base = get_args(annotation)[0] if optional else annotation
        return f"{base.__name__}{'?' if optional else ''}"

    return ", ".join(f"{spell(a)} {name}" for name, a in get_type_hints(parameters).items())


def _may_have_tangents(tensors: tuple[Any, ...]) -> bool:
    """Whether there is a tangent.  Those of torch.func.jvp cannot be seen, only that it runs, in whatever thread."""
    if forward_ad._current_level < 0 or not torch._C._is_fwd_grad_enabled():
        return False
    if torch._functorch.eager_transforms.JVP_NESTING > 0:
        return True
    # of the keys that a dispatch mode has left behind, asking for a tangent needs this one
    with torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.ADInplaceOrView, False):
        return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def _of_operator(
    function: Callable[..., Any], parameters: type[Loss], n_tensors: int
) -> Callable[..., Any]:
    """The function of a loss with an operator's arguments, and outputs that are all tensors."""

    def operator(*args: Any) -> Any:
        # PyTorch would drop tangents without a word.  The losses turn forward mode off when they call an operator.
        if _may_have_tangents(args[:n_tensors]):
            raise NotImplementedError(
                "operators of triton_topk, and compiled losses, have no forward-mode derivative"
            )
        out = function(parameters(*args[n_tensors:]), *args[:n_tensors])
        if isinstance(out, Tensor):
            return out
        return tuple(out[0].new_empty((0, 2), dtype=torch.bool) if x is None else x for x in out)

    return operator


def _register(name: str, parameters: type[Loss]) -> None:
    n_parameters = len(get_type_hints(parameters))

    def define(suffix: str, tensors: str, returns: str, like: Callable[..., Any]) -> None:
        n_tensors = len(tensors.split(","))
        _library.define(f"{name}{suffix}({tensors}, {_schema(parameters)}) -> {returns}")
        _library.impl(
            f"{name}{suffix}",
            _of_operator(FUNCTIONS[suffix], parameters, n_tensors),
            "CompositeExplicitAutograd",
        )
        _library.impl(f"{name}{suffix}", _of_operator(like, parameters, n_tensors), "Meta")

    define(
        "",
        _INPUTS,
        "(Tensor, Tensor)",
        lambda loss, scores, *_: (_new_losses(scores), _new_hits(scores, loss)),
    )
    define(
        "_with_gradient",
        _INPUTS,
        "(Tensor, Tensor, Tensor)",
        lambda loss, scores, *_: (
            _new_losses(scores),
            _new_hits(scores, loss),
            _new_gradient(scores),
        ),
    )
    define(
        "_gradient",
        f"{_INPUTS}, Tensor upstream",
        "Tensor",
        lambda _, scores, *__: _new_gradient(scores),
    )

    def save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        n_tensors = len(inputs) - n_parameters
        ctx.save_for_backward(*inputs[:n_tensors])
        ctx.loss = parameters(*inputs[n_tensors:])

    def first_derivative(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        gradient = getattr(_ops, f"{name}_gradient")(*ctx.saved_tensors, upstream, *ctx.loss)
        return gradient, *[None] * (_N_INPUTS - 1 + n_parameters)

    # Of the gradient there is a derivative in autograd.py; torch.compile has none of a gradient.
    torch.library.register_autograd(
        f"triton_topk::{name}", first_derivative, setup_context=save_inputs, lib=_library
    )


# What an earlier import of the package has registered stays, since compiled graphs hold on to it.
if not hasattr(_ops, "scale_"):
    _library = torch.library.Library("triton_topk", "DEF")
    for _name, _parameters in _LOSSES.items():
        _register(_name, _parameters)
    _library.define("scale_(Tensor(a!) gradient, Tensor factor) -> ()")
    _library.impl("scale_", scale_, "CompositeExplicitAutograd")
    _library.impl("scale_", lambda *_: None, "Meta")

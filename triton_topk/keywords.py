"""A call that is refused is told what to write, or is left to what else can answer it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

from torch import Tensor
from torch.overrides import handle_torch_function

F = TypeVar("F", bound=Callable[..., Any])

# Other losses' words for an argument: F.cross_entropy's, those of the authors' topk.svm and of implementations of Lq,
# and the trainers'.
_SAME = {
    "input": "scores",
    "logits": "scores",
    "pred": "scores",
    "x": "scores",
    "target": "labels",
    "targets": "labels",
    "y": "labels",
    "alpha": "margin",
    "temperature": "tau",
    "trainset_size": "num_samples",
    "indexes": "indices",
    "num_items_in_batch": "normalizer",
    "sample_weight": "weight",
    "size_average": "reduction",
    "reduce": "reduction",
    "bias": "linear_bias",
    "chunk_size": "chunk_rows",
}
_NONE = {
    "label_smoothing": "label smoothing is not supported",
    "smoothing": "label smoothing is not supported",
    "n_classes": "the scores say how many classes there are",
    "num_classes": "the scores say how many classes there are",
    "k": "this loss has none; the threshold that is called k elsewhere is truncation",
}
# The two methods of a module that take arguments, and what each is to the other.
_OTHER = {"__init__": ("forward", "call"), "forward": ("__init__", "constructor")}


def explained(function: F) -> F:
    """Make the TypeError of a function for an unknown keyword say what takes its place.

    A loss that is given something like a tensor, as torch.fx traces with, leaves the call to its __torch_function__.
    """

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        # not looked at beforehand, so that right calls do not wait for it
        try:
            return function(*args, **options)
        except TypeError:
            parameters = signature(function).parameters
            unknown = next((word for word in options if word not in parameters), None)
            of_module = "self" in parameters
            if unknown is not None and (args or not of_module):
                raise TypeError(_message(unknown, function, *args)) from None
            likes = [x for x in (*args, *options.values()) if _is_like_a_tensor(x)]
            if of_module or not likes:
                raise
        return handle_torch_function(call, likes, *args, **options)

    return cast(F, call)


def _is_like_a_tensor(x: object) -> bool:
    return hasattr(type(x), "__torch_function__") and not isinstance(x, Tensor)


def _message(word: str, function: Callable[..., Any], *args: Any) -> str:
    name, parameters = function.__name__, list(signature(function).parameters)
    advice = f"expected one of {', '.join(x for x in parameters if x != 'self')}"
    if _SAME.get(word) in parameters:
        advice = f"use {_SAME[word]}"
    elif word in _NONE:
        advice = _NONE[word]
    elif name in _OTHER:
        other, what = _OTHER[name]
        if word in signature(getattr(type(args[0]), other)).parameters:
            advice = f"give it to the {what}"
    if name == "forward":
        name = f"{type(args[0]).__name__}.{name}"
    elif parameters[0] == "self":
        name = function.__qualname__  # a subclass may have another constructor
    return f"{name}() got an unexpected keyword argument '{word}': {advice}"

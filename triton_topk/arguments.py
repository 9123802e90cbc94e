"""Checks of the losses' arguments: errors that name the argument, its value and what was expected."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from numbers import Real
from typing import TypeVar, TypeVarTuple

import torch
from torch import Tensor

from triton_topk.parameters import HardSVM, Lq, SmoothSVM, SmoothSVMLq

_SCORES_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SMALLEST, _LARGEST = math.ulp(0.0), sys.float_info.max
_BELOW_ONE = 1 - sys.float_info.epsilon / 2

A = TypeVarTuple("A")
T = TypeVar("T")


def check_tensors(scores: Tensor, labels: Tensor, weight: Tensor | None) -> int:
    """The number of classes C."""
    n_classes = _check_scores_and_labels(scores, labels)
    _check_weight(weight, n_classes, scores)
    return n_classes


def _check_scores_and_labels(scores: Tensor, labels: Tensor) -> int:
    """The number of classes C."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"scores must be a Tensor, got {type(scores).__name__}")
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a Tensor, got {type(labels).__name__}")
    if scores.dtype not in _SCORES_DTYPES:
        raise TypeError(f"scores must be float16, bfloat16, float32 or float64, got {scores.dtype}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be of an integer dtype, got {labels.dtype}")
    shape = scores.shape
    if not shape:
        raise ValueError("scores must have shape (C,), (N, C) or (N, C, d1, ...), got ()")
    n_classes = shape[min(1, len(shape) - 1)]
    expected = () if len(shape) == 1 else (shape[0], *shape[2:])
    if labels.shape != expected:
        raise ValueError(
            f"labels must have shape {expected} for scores of shape {tuple(shape)}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.device != scores.device:
        raise ValueError(
            f"labels must be on the device of scores, {scores.device}, got {labels.device}"
        )
    if n_classes == 0:
        raise ValueError(f"scores must have at least one class, got shape {tuple(shape)}")
    return n_classes


def _check_weight(weight: Tensor | None, n_classes: int, scores: Tensor) -> None:
    if weight is None:
        return
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating-point Tensor, got {got}")
    if weight.requires_grad:
        raise ValueError(
            "weight must not require a gradient, which is computed for scores only, "
            "got requires_grad=True"
        )
    if tuple(weight.shape) != (n_classes,):
        raise ValueError(f"weight must have shape ({n_classes},), got {tuple(weight.shape)}")
    if weight.device != scores.device:
        raise ValueError(
            f"weight must be on the device of scores, {scores.device}, got {weight.device}"
        )


def check_k(k: int, n_classes: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an int, got {k!r}")
    if not 1 <= k < n_classes:
        raise ValueError(f"k must satisfy 1 <= k < C, got k={k} for C={n_classes} classes")


def check_options(ignore_index: int, reduction: str, backend: str | None) -> None:
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index must be an int, got {ignore_index!r}")
    _check_choice("reduction", reduction, ("none", "mean", "sum"))
    _check_choice("backend", backend, (None, "triton", "eager"))


def check_q(q: float) -> None:
    _check_number("q", q, "in [0, 1]", 0, 1)


def check_truncation(truncation: float | None) -> None:
    if truncation is not None:
        _check_number("truncation", truncation, "None or in (0, 1)", _SMALLEST, _BELOW_ONE)


def _check_temperature(tau: float) -> None:
    _check_number("tau", tau, "> 0 and finite", _SMALLEST, _LARGEST)


def _check_margin(margin: float) -> None:
    _check_number("margin", margin, ">= 0 and finite", 0, _LARGEST)


def _check_number(name: str, value: float, expected: str, low: float, high: float) -> None:
    """low <= value <= high; `expected` says so."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be {expected}, got {value}")


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _taylor_order(order: int | None, gradient: str, k: int) -> int | None:
    """p of the Taylor-type gradient; None for the exact one."""
    _check_choice("gradient", gradient, ("exact", "taylor"))
    if order is not None and (isinstance(order, bool) or not isinstance(order, int)):
        raise TypeError(f"order must be an int or None, got {order!r}")
    if order is not None and order < 1:
        raise ValueError(f"order must be >= 1, got {order}")
    if gradient == "exact":
        if order is not None:
            raise ValueError(f"order is for gradient='taylor' only, got order={order}")
        return None
    return 1 + k // 5 if order is None else order


def _remembered(function: Callable[[*A], T]) -> Callable[[*A], T]:
    """A function of numbers and words that keeps its answers: a training loop asks the same every time."""
    # typed: of 1, 1.0 and True, which are equal, not all need be right
    remember = lru_cache(maxsize=1024, typed=True)(function)

    @wraps(function)
    def answer(*args: *A) -> T:
        # torch.compile asks once, and some of its numbers are symbols
        if torch.compiler.is_compiling():
            return function(*args)
        try:
            return remember(*args)
        except TypeError:
            # wrong, or without a hash, of which the function can say what is wrong
            pass
        return function(*args)

    return answer


# The parameters of each loss; k has been checked.


@_remembered
def smooth_svm(
    k: int,
    tau: float,
    margin: float,
    gradient: str,
    order: int | None,
    ignore_index: int,
    reduction: str,
    backend: str | None,
) -> SmoothSVM:
    check_options(ignore_index, reduction, backend)
    _check_temperature(tau)
    _check_margin(margin)
    p = _taylor_order(order, gradient, k)
    return SmoothSVM(k, float(tau), float(margin), p, ignore_index, backend)


@_remembered
def hard_svm(
    k: int, margin: float, ignore_index: int, reduction: str, backend: str | None
) -> HardSVM:
    check_options(ignore_index, reduction, backend)
    _check_margin(margin)
    return HardSVM(k, float(margin), ignore_index, backend)


@_remembered
def lq(
    q: float, truncation: float | None, ignore_index: int, reduction: str, backend: str | None
) -> Lq:
    check_options(ignore_index, reduction, backend)
    check_q(q)
    check_truncation(truncation)
    return Lq(float(q), truncation, ignore_index, backend)


@_remembered
def smooth_svm_lq(
    k: int,
    q: float,
    mix: float,
    tau: float,
    margin: float,
    truncation: float | None,
    gradient: str,
    ignore_index: int,
    reduction: str,
    backend: str | None,
) -> SmoothSVMLq:
    check_options(ignore_index, reduction, backend)
    _check_temperature(tau)
    _check_margin(margin)
    check_q(q)
    check_truncation(truncation)
    _check_number("mix", mix, "in [0, 1]", 0, 1)
    p = _taylor_order(None, gradient, k)
    return SmoothSVMLq(
        k, float(tau), float(margin), p, float(q), truncation, float(mix), ignore_index, backend
    )

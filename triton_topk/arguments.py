"""The losses' numbers and words, checked: errors that name the argument, its value and what was expected."""

from __future__ import annotations

import math
import operator
import reprlib
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor

from triton_topk.options import Backend, Gradient, Reduction
from triton_topk.parameters import HardSVM, Lq, SmoothSVM, SmoothSVMLq

_SMALLEST, _LARGEST = math.ulp(0.0), sys.float_info.max
_BELOW_ONE = 1 - sys.float_info.epsilon / 2

# C where there are no scores yet: any k is below it.
_UNKNOWN = sys.maxsize
_DEFAULT_K = 5
_REDUCTIONS, _GRADIENTS = get_args(Reduction), get_args(Gradient)
_BACKENDS = (None, *get_args(Backend))

P = ParamSpec("P")
T = TypeVar("T")


def shown(value: object) -> str:
    """An option in a message or in a module's representation: no thousands of numbers."""
    if isinstance(value, Tensor):
        return f"<Tensor of shape {tuple(value.shape)}>"
    return reprlib.repr(value)


def as_int(value: Any) -> Any:
    """An index of another type, as NumPy's integers are, as an int; anything else as it is."""
    # reading a tensor would wait for its device
    if isinstance(value, int | Tensor):
        return value
    try:
        return operator.index(value)
    except TypeError:
        return value


def integer(name: str, value: int) -> int:
    number: int = as_int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int, got {shown(value)}")
    return number


def _k(k: int, n_classes: int) -> int:
    k = integer("k", k)
    if not 1 <= k < n_classes:
        default = " (the default)" if k == _DEFAULT_K else ""
        raise ValueError(f"k must satisfy 1 <= k < {_c(n_classes)}, got k={k}{default}")
    return k


def _c(n_classes: int) -> str:
    return "C" if n_classes == _UNKNOWN else f"C={n_classes}"


def _ignored(ignore_index: int) -> int:
    ignore_index = integer("ignore_index", ignore_index)
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must be an int of 64 bits, got {ignore_index}")
    return ignore_index


def _check_choices(reduction: str, backend: str | None) -> None:
    _check_choice("reduction", reduction, _REDUCTIONS)
    _check_choice("backend", backend, _BACKENDS)


def _check_q(q: float) -> None:
    _check_number("q", q, "in [0, 1]", 0, 1)


def _truncation(truncation: float | None) -> float | None:
    if truncation is None:
        return None
    _check_number("truncation", truncation, "None or in (0, 1)", _SMALLEST, _BELOW_ONE)
    return float(truncation)


def _check_temperature(tau: float) -> None:
    # beyond, 1 / (k tau) leaves the range of float32
    _check_number("tau", tau, "in [1e-37, 1e37]", 1e-37, 1e37)


def _check_margin(margin: float) -> None:
    _check_number("margin", margin, ">= 0 and finite", 0, _LARGEST, "a number or a Tensor")


def _k_of_hits(return_topk_hits: bool, k: int) -> int | None:
    if not isinstance(return_topk_hits, bool):
        raise TypeError(f"return_topk_hits must be a bool, got {shown(return_topk_hits)}")
    return k if return_topk_hits else None


def check_normalizer(normalizer: float, dtype: torch.dtype) -> None:
    """dtype: of the losses."""
    range_ = torch.finfo(dtype)
    low, high = range_.smallest_normal, range_.max
    expected = f"> 0 and finite in {dtype}"
    _check_number("normalizer", normalizer, expected, low, high, "a number or a Tensor")


def _check_number(
    name: str, value: float, expected: str, low: float, high: float, kind: str = "a number"
) -> None:
    """low <= value <= high; `expected` says so."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {kind}, got {shown(value)}")
    # NumPy's narrow numbers cannot be compared with all of Python's
    number = value if isinstance(value, int | float) else float(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be {expected}, got {value}")


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    # what is neither may be an array, which is equal in part
    if not isinstance(value, str | None) or value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}"
        )


def _taylor_order(order: int | None, gradient: str, k: int, n_classes: int) -> int | None:
    """p of the Taylor-type gradient; None for the exact one."""
    _check_choice("gradient", gradient, _GRADIENTS)
    if order is not None:
        order = integer("order", order)
        if not 1 <= order <= n_classes:
            raise ValueError(f"order must satisfy 1 <= order <= {_c(n_classes)}, got {order}")
    if gradient == "exact":
        if order is not None:
            raise ValueError(f"order is for gradient='taylor' only, got order={order}")
        return None
    return 1 + k // 5 if order is None else order


def _remembered(function: Callable[P, T]) -> Callable[P, T]:
    """A function of numbers and words that keeps its answers: a training loop asks the same every time."""
    # typed: of 1, 1.0 and True, which are equal, not all need be right
    remember = lru_cache(maxsize=1024, typed=True)(function)

    @wraps(function)
    def answer(*args: P.args, **options: P.kwargs) -> T:
        # a module's constructor, by name, and torch.compile, some of whose numbers are symbols, ask once
        if options or torch.compiler.is_compiling():
            return function(*args, **options)
        try:
            return remember(*args)
        except TypeError:
            # wrong, or without a hash, of which the function can say what is wrong
            pass
        return function(*args, **options)

    return answer


# The parameters of each loss.


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
    return_topk_hits: bool,
    n_classes: int = _UNKNOWN,
) -> SmoothSVM:
    k, ignore_index = _k(k, n_classes), _ignored(ignore_index)
    _check_choices(reduction, backend)
    _check_temperature(tau)
    _check_margin(margin)
    p = _taylor_order(order, gradient, k, n_classes)
    hits = _k_of_hits(return_topk_hits, k)
    return SmoothSVM(k, float(tau), float(margin), p, ignore_index, backend, hits)


@_remembered
def hard_svm(
    k: int,
    margin: float,
    ignore_index: int,
    reduction: str,
    backend: str | None,
    return_topk_hits: bool,
    n_classes: int = _UNKNOWN,
) -> HardSVM:
    k, ignore_index = _k(k, n_classes), _ignored(ignore_index)
    _check_choices(reduction, backend)
    _check_margin(margin)
    return HardSVM(k, float(margin), ignore_index, backend, _k_of_hits(return_topk_hits, k))


@_remembered
def lq(
    q: float,
    truncation: float | None,
    ignore_index: int,
    reduction: str,
    backend: str | None,
    return_topk_hits: bool = False,
    k: int = 1,
    n_classes: int = _UNKNOWN,
) -> Lq:
    k, ignore_index = integer("k", k), _ignored(ignore_index)
    _check_choices(reduction, backend)
    _check_q(q)
    hits = _k_of_hits(return_topk_hits, k)
    if hits is not None:
        _k(hits, n_classes)
    return Lq(float(q), _truncation(truncation), ignore_index, backend, hits)


@_remembered
def smooth_svm_lq(
    k: int,
    q: float,
    mix: float,
    tau: float,
    margin: float,
    truncation: float | None,
    gradient: str,
    order: int | None,
    ignore_index: int,
    reduction: str,
    backend: str | None,
    return_topk_hits: bool,
    n_classes: int = _UNKNOWN,
) -> SmoothSVMLq:
    k, ignore_index = _k(k, n_classes), _ignored(ignore_index)
    _check_choices(reduction, backend)
    _check_temperature(tau)
    _check_margin(margin)
    _check_q(q)
    _check_number("mix", mix, "in [0, 1]", 0, 1)
    p = _taylor_order(order, gradient, k, n_classes)
    return SmoothSVMLq(
        k,
        float(tau),
        float(margin),
        p,
        float(q),
        _truncation(truncation),
        float(mix),
        ignore_index,
        backend,
        _k_of_hits(return_topk_hits, k),
    )

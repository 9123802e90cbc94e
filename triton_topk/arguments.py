"""The checks take one argument each; their errors name it, its value and what was expected."""

from __future__ import annotations

import math
import operator
import reprlib
import sys
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["none", "mean", "sum"]
Backend = Literal["triton", "native", "eager"]  # in the order of backends.BACKENDS
Gradient = Literal["exact", "taylor"]
# of each class, of each sample, or both
Weight = Tensor | tuple[Tensor | None, Tensor | None]

_SMALLEST, _LARGEST = math.ulp(0.0), sys.float_info.max
_BELOW_ONE = 1 - sys.float_info.epsilon / 2

_REPR = reprlib.Repr()
_REPR.maxother = 96  # characters: all of a shard of a million classes

# C before there are scores: any k is below it.
UNKNOWN = sys.maxsize
_DEFAULT_K = 5
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "reduction": get_args(Reduction),
    "gradient": get_args(Gradient),
    "backend": (None, *get_args(Backend)),
}


def shown(value: object) -> str:
    """Return an option as a message or a module's representation shows it, without thousands of numbers."""
    if isinstance(value, Tensor):
        return f"<Tensor of shape {tuple(value.shape)}>"
    return _REPR.repr(value)


def as_int(value: Any) -> Any:
    """Return an index of another type, as NumPy's integers are, as an int, and anything else as it is."""
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


def k(value: int, n_classes: int) -> int:
    value = integer("k", value)
    if not 1 <= value < n_classes:
        default = " (the default)" if value == _DEFAULT_K else ""
        raise ValueError(f"k must satisfy 1 <= k < {_c(n_classes)}, got k={value}{default}")
    return value


def _c(n_classes: int) -> str:
    return "C" if n_classes == UNKNOWN else f"C={n_classes}"


def ignore_index(value: int) -> int:
    value = integer("ignore_index", value)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"ignore_index must be an int of 64 bits, got {value}")
    return value


def chunk_rows(value: int | None) -> int | None:
    if value is None:
        return None
    value = integer("chunk_rows", value)
    if not 1 <= value < 2**63:
        raise ValueError(f"chunk_rows must be None or in [1, 2**63), got {value}")
    return value


def share(name: str, value: float) -> float:
    """Check q or mix."""
    return _number(name, value, "in [0, 1]", 0, 1)


def truncation(value: float | None) -> float | None:
    if value is None:
        return None
    return _number("truncation", value, "None or in (0, 1)", _SMALLEST, _BELOW_ONE)


def tau(value: float) -> float:
    # beyond, 1 / (k tau) leaves the range of float32
    return _number("tau", value, "in [1e-37, 1e37]", 1e-37, 1e37)


def margin(value: float) -> float:
    return _number("margin", value, ">= 0 and finite", 0, _LARGEST, "a number or a Tensor")


def alpha(value: float) -> float:
    """Check the margin of the criteria with the authors' names."""
    return _number("alpha", value, ">= 0 and finite", 0, _LARGEST)


def normalizer(value: float, dtype: torch.dtype) -> None:
    """Check the divisor of losses of this dtype."""
    range_ = torch.finfo(dtype)
    low, high = range_.smallest_normal, range_.max
    expected = f"> 0 and finite in {dtype}"
    _number("normalizer", value, expected, low, high, "a number or a Tensor")


def _number(
    name: str, value: float, expected: str, low: float, high: float, kind: str = "a number"
) -> float:
    """Return a number in [low, high], as `expected` says, as a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {kind}, got {shown(value)}")
    # NumPy's narrow numbers cannot be compared with all of Python's
    number = value if isinstance(value, int | float) else float(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be {expected}, got {value}")
    return float(number)


def choice(name: str, value: str | None) -> None:
    """Check a word that is one of a few."""
    choices = _CHOICES[name]
    # what is neither may be an array, which is equal in part
    if not isinstance(value, str | None) or value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}"
        )


def k_of_hits(return_topk_hits: bool, k: int) -> int | None:
    """Return k if the top-k hits are asked for, else None."""
    if not isinstance(return_topk_hits, bool):
        raise TypeError(f"return_topk_hits must be a bool, got {shown(return_topk_hits)}")
    return k if return_topk_hits else None


def taylor_order(order: int | None, gradient: str, k: int, n_classes: int) -> int | None:
    """Return p of the Taylor-type gradient, or None for the exact one."""
    choice("gradient", gradient)
    if order is not None:
        order = integer("order", order)
        if not 1 <= order <= n_classes:
            raise ValueError(f"order must satisfy 1 <= order <= {_c(n_classes)}, got {order}")
    if gradient == "exact":
        if order is not None:
            raise ValueError(f"order is for gradient='taylor' only, got order={order}")
        return None
    return 1 + k // 5 if order is None else order

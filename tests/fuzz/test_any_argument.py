"""Anything passed for any argument either is understood or raises an error that names the argument."""

from __future__ import annotations

import inspect
import math
import operator
import re
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from calls import LOSSES, Call
from checks import check
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from torch import Tensor

import triton_topk

_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64,
    torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e5m2,
]  # fmt: skip
_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "meta": lambda x: x.to("meta"),
    "grad": Tensor.requires_grad_,
    "parameter": torch.nn.Parameter,
    "sparse": Tensor.to_sparse,
    "csr": Tensor.to_sparse_csr,
}
# Multiples of such numbers need not fit into single precision.
_LARGE = 1e30
_ARRAYS = [np.array(x) for x in (1, 2.5, [1, 2], ["mean", "sum"], [[0.5]], [None], [])]
_OBJECTS = [
    object(),
    Tensor,
    len,
    torch.float32,
    torch.device("cpu"),
    [],
    [1.0],
    (2,),
    {},
    {"k": 1},
    set(),
    ...,
]


@st.composite
def _tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    dtype = draw(st.sampled_from(_DTYPES))
    # zeros and ones, which are labels and weights, and as a single number one can divide by it
    x = (torch.arange(1, 1 + math.prod(shape)) % 2).reshape(shape).to(dtype)
    kinds = ["plain", "meta"]
    if dtype.is_floating_point and dtype.itemsize > 1:
        kinds += ["grad", "parameter", "sparse", *["csr"] * (len(shape) == 2)]
    kind = draw(st.sampled_from(kinds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse CSR is in beta
        return _KINDS[kind](x)


_ANYTHING = st.one_of(
    _tensors(),
    _tensors(),
    st.none(),
    st.booleans(),
    st.integers(-3, 10),
    st.integers(-(10**30), 10**30),
    st.sampled_from([10**400, -(2**63), 2**63 - 1, 2**63]),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=3),
    st.sampled_from(["none", "mean", "sum", "exact", "taylor", "eager", "MEAN", b"mean"]),
    st.complex_numbers(),
    st.sampled_from(
        [
            Fraction(1, 2),
            Decimal("0.5"),
            np.float32(0.5),
            np.float64(0.25),
            np.int64(2),
            np.bool_(True),
        ]
    ),
    st.sampled_from(_ARRAYS),
    st.sampled_from(_OBJECTS),
)


@st.composite
def _calls(draw: st.DrawFn) -> Call:
    """A call that is right but for one to three arguments."""
    loss = draw(st.sampled_from(LOSSES))
    arguments: dict[str, Any] = {
        "scores": torch.linspace(-1, 1, 12).sin().reshape(3, 4),
        "labels": torch.tensor([0, 3, 1]),
        "k": 2,
    }
    names = sorted({*inspect.signature(getattr(triton_topk, loss)).parameters} - {"backend"})
    wrong = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    arguments |= {name: draw(_ANYTHING, name) for name in wrong}
    return Call(loss, arguments.pop("scores"), arguments.pop("labels"), arguments, 1.0)


@examples(150)
@given(_calls())
def test_anything_for_any_argument(call: Call) -> None:
    names = inspect.signature(getattr(triton_topk, call.loss)).parameters
    try:
        out = call(backend="eager")
    except (TypeError, ValueError, IndexError, NotImplementedError) as error:
        if not re.search(rf"\b({'|'.join(names)})\b", str(error)):
            raise
        return
    numbers = [abs(x) for x in call.options.values() if isinstance(x, Real)]
    if not call.scores.is_meta and all(x <= _LARGE for x in numbers):
        check(_understood(call), "eager")
        return
    losses = out[0] if call.options.get("return_topk_hits") else out
    assert losses.shape == (call.labels.shape if call.options.get("reduction") == "none" else ())


def _understood(call: Call) -> Call:
    """The same with every number as Python's own, and scores that a gradient can be computed for."""
    options = {name: _number(x) for name, x in call.options.items()}
    return Call(call.loss, call.scores.detach(), call.labels, options, call.upstream)


def _number(x: Any) -> Any:
    if isinstance(x, int | Tensor):
        return x
    if isinstance(x, Real) and not isinstance(x, Integral):
        return float(x)
    return operator.index(x) if hasattr(x, "__index__") else x

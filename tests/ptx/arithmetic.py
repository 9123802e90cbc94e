"""The instructions whose result depends on their operands alone: each with the types of all, on arrays of threads.

An instruction that is not in the table is not known.  A bfloat16 is the number that its bits are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Compute = Callable[..., Array]

_KINDS = (("f", "f"), ("s", "i"), ("u", "u"), ("b", "u"))  # PTX's and NumPy's, of up to 64 bits
TYPES: dict[str, Any] = {
    f"{k}{8 * n}": np.dtype(f"{c}{n}") for k, c in _KINDS for n in (1, 2, 4, 8) if k != "f" or n > 1
}
TYPES |= {"pred": np.dtype(bool), "bf16": np.dtype("u2")}
TYPES |= dict.fromkeys(("bf16x2", "f16x2"), np.dtype("u4"))
U16, U32, U64, S64 = (TYPES[name] for name in ("u16", "u32", "u64", "s64"))
F16, F32, F64 = (TYPES[name] for name in ("f16", "f32", "f64"))


def fma(a: Array, b: Array, c: Array) -> Array:
    """a b + c in extended precision, rounded: once, but for one case in 2^40, where what it held was itself a tie.

    A product of float64 numbers is rounded to 64 bits before, so that where c cancels it the rest is off.
    """
    wide = np.longdouble
    return (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(a.dtype)


def _max(a: Array, b: Array) -> Array:
    """The number if the other is none; 0 is larger than -0."""
    return np.where((a == 0) & (b == 0), a + b, np.fmax(a, b))


def _flushing(compute: Compute) -> Compute:
    """Subnormal numbers, given and found, become zeros of their signs."""

    def flush(x: Array) -> Array:
        return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)

    return lambda *x: flush(compute(*map(flush, x)))


def _approximate(y: Array, *arguments: Array) -> Array:
    """Float32 numbers off by -1, 0 or 1 unit in the last place, which the arguments decide."""
    mixed = np.zeros(y.shape, U64)
    for x in arguments:
        mixed = (mixed + x.view(U32)) * np.uint64(0x9E3779B97F4A7C15)
    off = (mixed >> np.uint64(40)) % np.uint64(3)
    moved = (y.view(np.int32) + off.astype(np.int32) - 1).view(F32)
    return np.where((y == 0) | ~np.isfinite(y), y, moved)


def _exp2(x: Array) -> Array:
    """Exact for integers, as devices were seen to be."""
    y = np.exp2(x.astype(F64)).astype(F32)
    return np.where(x == np.floor(x), y, _approximate(y, x))


def _in_range(x: Array) -> Array:
    """A divisor beyond 2^126 is taken as infinite."""
    return np.where(np.abs(x) > 2.0**126, np.copysign(np.float32(np.inf), x), x)


def _upper(x: Array) -> Array:
    return (x.view(U64) & np.uint64(0xFFFFFFFF00000000)).view(F64)


def from_bfloat16(x: Array) -> Array:
    return (x.astype(U32) << np.uint32(16)).view(F32)


def to_bfloat16(x: Array) -> Array:
    """To the nearest, ties to even; NaN is 0x7fff."""
    bits = x.view(U32).astype(U64)
    rounded = (bits + np.uint64(0x7FFF) + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded.astype(U16))


def _widened(compute: Compute, *x: Array) -> Array:
    return compute(*map(from_bfloat16, x))


def _max_bfloat16(a: Array, b: Array) -> Array:
    return to_bfloat16(_widened(_max, a, b))


def _halves(x: Array, kind: Any) -> Array:
    """[thread, half], the lower first"""
    return np.ascontiguousarray(x)[:, None].view(kind)


def _in_pairs(compute: Compute, kind: Any, a: Array, b: Array) -> Array:
    return compute(_halves(a, kind), _halves(b, kind)).view(U32)[:, 0]


def _of_pairs(compare: Compute, a: Array, b: Array) -> Array:
    """The lower halves' result, and the upper ones'."""
    return _widened(compare, _halves(a, U16), _halves(b, U16)).T


def _packed(narrow: Callable[[Array], Array], high: Array, low: Array) -> Array:
    return narrow(high).view(U16).astype(U32) << np.uint32(16) | narrow(low).view(U16)


def _shifted(compute: Compute, x: Array, by: Array) -> Array:
    """Shift by all bits, at most, which leaves nothing of an unsigned number, and the sign of a signed one."""
    last = 8 * x.dtype.itemsize - 1
    result = compute(x, np.minimum(by, last).astype(x.dtype))
    return result if x.dtype.kind == "i" else np.where(by > last, 0, result)


def _field(x: Array, start: Array, length: Array) -> Array:
    """The result is so many bits from the start on, as a number of the type: the last is a signed one's sign."""
    if (start > 31).any() or (length == 0).any() or (start + length > 32).any():
        raise NotImplementedError("bfe beyond the 32 bits")
    above = (np.uint32(32) - start - length).astype(x.dtype)
    return x << above >> above + start.astype(x.dtype)


def _permuted(a: Array, b: Array, selector: Array) -> Array:
    """The selector's first four digits name four of the eight bytes of a (the lower) and b."""
    both, result = a.astype(U64) | b.astype(U64) << np.uint64(32), 0
    for i in range(4):
        digit = (selector >> np.uint32(4 * i) & np.uint32(15)).astype(U64)
        if (digit > 7).any():
            raise NotImplementedError("prmt that replicates a sign")
        result |= (both >> digit * np.uint64(8) & np.uint64(255)) << np.uint64(8 * i)
    return result


def _truncated(x: Array) -> Array:
    """To an int32, clamped to its range; NaN is 0."""
    return np.where(np.isnan(x), 0, np.clip(np.trunc(x.astype(F64)), -(2**31), 2**31 - 1))


def _wide(x: Array) -> Array:
    return x.astype(f"{x.dtype.kind}{2 * x.dtype.itemsize}")


_COMPARE = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
_ORDER: dict[str, Compute] = {  # floating-point numbers
    "num": lambda a, b: (a == a) & (b == b),
    "nan": lambda a, b: (a != a) | (b != b),
    **{name: lambda a, b, f=f: f(a, b) & (a == a) & (b == b) for name, f in _COMPARE.items()},
    **{f"{name}u": lambda a, b, f=f: f(a, b) | (a != a) | (b != b) for name, f in _COMPARE.items()},
}
_FLOATS, _INTEGERS, _BITS = "f32 f64", "s16 u16 s32 u32 s64 u64", "b16 b32 b64"
_ALL_INTEGERS, _WIDER = (
    f"s8 u8 {_INTEGERS}",
    [(f"{k}{n}", f"{k}{2 * n}") for k in "su" for n in (16, 32)],
)
# instructions but for their last type t, these types, the types of the result and of the arguments
_TABLE: list[tuple[str, str, str, Compute]] = [
    ("add add.rn", _FLOATS, "t t t", np.add),
    ("sub sub.rn", _FLOATS, "t t t", np.subtract),
    ("mul mul.rn", _FLOATS, "t t t", np.multiply),
    ("div.rn", _FLOATS, "t t t", np.divide),
    ("fma.rn", _FLOATS, "t t t t", fma),
    ("fma.rn.ftz", "f32", "t t t t", _flushing(fma)),
    ("neg", _FLOATS, "t t", np.negative),
    ("abs", _FLOATS, "t t", np.abs),
    ("abs.ftz", "f32", "t t", _flushing(np.abs)),
    ("min", _FLOATS, "t t t", lambda a, b: -_max(-a, -b)),
    ("max", f"{_FLOATS} f16", "t t t", _max),
    ("max", "bf16", "t t t", _max_bfloat16),
    ("max", "bf16x2", "t t t", partial(_in_pairs, _max_bfloat16, U16)),
    ("max", "f16x2", "t t t", partial(_in_pairs, _max, F16)),
    ("ex2.approx.ftz", "f32", "t t", _flushing(_exp2)),
    ("rsqrt.approx.ftz", "f32", "t t", _flushing(lambda x: _approximate(1 / np.sqrt(x), x))),
    ("rsqrt.approx", "f64", "t t", lambda x: 1 / np.sqrt(x)),
    ("rcp.approx.ftz", "f64", "t t", _flushing(lambda x: _upper(1 / _upper(x)))),
    ("div.full", "f32", "t t t", lambda a, b: _approximate(a / b, a, b)),
    ("div.approx", "f32", "t t t", lambda a, b: _approximate(a / _in_range(b), a, b)),
    *((f"setp.{name}", f"{_FLOATS} f16", "pred t t", f) for name, f in _ORDER.items()),
    *((f"setp.{name}", "bf16", "pred t t", partial(_widened, f)) for name, f in _ORDER.items()),
    *((f"setp.{name}", "bf16x2", "pred t t", partial(_of_pairs, f)) for name, f in _ORDER.items()),
    ("add", _INTEGERS, "t t t", np.add),
    ("sub", _INTEGERS, "t t t", np.subtract),
    ("mul.lo", _INTEGERS, "t t t", np.multiply),
    ("mul.hi", "s32 u32", "t t t", lambda a, b: _wide(a) * _wide(b) >> 32),
    ("mad.lo", _INTEGERS, "t t t t", lambda a, b, c: a * b + c),
    *(("mul.wide", t, f"{w} t t", lambda a, b: _wide(a) * _wide(b)) for t, w in _WIDER),
    *(("mad.wide", t, f"{w} t t {w}", lambda a, b, c: _wide(a) * _wide(b) + c) for t, w in _WIDER),
    ("min", _INTEGERS, "t t t", np.minimum),
    ("max", _INTEGERS, "t t t", np.maximum),
    ("neg", "s16 s32 s64", "t t", np.negative),
    ("and", f"pred {_BITS}", "t t t", np.bitwise_and),
    ("or", f"pred {_BITS}", "t t t", np.bitwise_or),
    ("xor", f"pred {_BITS}", "t t t", np.bitwise_xor),
    ("not", f"pred {_BITS}", "t t", np.invert),
    ("shl", _BITS, "t t u32", partial(_shifted, np.left_shift)),
    ("shr", _INTEGERS, "t t u32", partial(_shifted, np.right_shift)),
    ("bfe", "u32 s32", "t t u32 u32", _field),
    ("popc", "b32", "u32 t", np.bitwise_count),
    ("prmt", "b32", "t t t t", _permuted),
    *((f"setp.{name}", _INTEGERS, "pred t t", f) for name, f in _COMPARE.items()),
    *((f"setp.{name}", _BITS, "pred t t", _COMPARE[name]) for name in ("eq", "ne")),
    # the machine makes the result what its type says
    *((f"cvt.{to}", _ALL_INTEGERS, f"{to} t", np.copy) for to in _ALL_INTEGERS.split()),
    ("cvt.rn.f32", f"f64 {_ALL_INTEGERS}", "f32 t", np.copy),
    ("cvt.rn.f64", _ALL_INTEGERS, "f64 t", np.copy),
    ("cvt.f32", "f16", "f32 t", np.copy),
    ("cvt.f64", "f32 f16", "f64 t", np.copy),
    ("cvt.rn.f16", "f32", "f16 t", np.copy),
    ("cvt.f32", "bf16", "f32 t", from_bfloat16),
    ("cvt.f64", "bf16", "f64 t", from_bfloat16),
    ("cvt.rn.bf16", "f32", "bf16 t", to_bfloat16),
    ("cvt.rn.bf16x2", "f32", "bf16x2 t t", partial(_packed, to_bfloat16)),
    ("cvt.rn.f16x2", "f32", "f16x2 t t", partial(_packed, lambda x: x.astype(F16))),
    ("cvt.rmi.f64", "f64", "t t", np.floor),
    ("cvt.rpi.f64", "f64", "t t", np.ceil),
    ("cvt.rpi.ftz.f32", "f32", "t t", _flushing(np.ceil)),
    ("cvt.rzi.s32", _FLOATS, "s32 t", _truncated),
    ("mov", " ".join(TYPES), "t t", np.copy),
    ("selp", " ".join(TYPES), "t t t pred", lambda a, b, p: np.where(p, a, b)),
]


class Operation(NamedTuple):
    result: Any
    arguments: tuple[Any, ...]
    compute: Compute  # something that can be cast to the result's type


OPERATIONS: dict[str, Operation] = {}
for _names, _types, _signature, _compute in _TABLE:
    for _t in _types.split():
        _result, *_arguments = (TYPES[_t if x == "t" else x] for x in _signature.split())
        for _name in _names.split():
            OPERATIONS[f"{_name}.{_t}"] = Operation(_result, tuple(_arguments), _compute)

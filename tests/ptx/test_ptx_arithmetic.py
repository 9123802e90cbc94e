"""Each instruction of the emulator's table, on numbers that are hard for it, against Python's or PyTorch's numbers."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.ptx.arithmetic import OPERATIONS

# among them bfloat16 and float16 numbers, one by one and in pairs
INTEGERS = (0, 1, 2, 3, 7, 31, 32, 33, -1, -3, -(2**31), 2**15 - 1, 0x3F80, 0xBFC0, 0x7F80, 0xFF80)
INTEGERS += (0x7FC0, 0x3C00, 0x3F80BFC0, 0x7FC03C00, 0xFF803F80, 0x5410, 0x3276, 2**63 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.5, 1 / 3, 2.0**-140, -3e38, 5.0, -7.99, math.inf, -math.inf, math.nan)
COMPARE = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
ULPS = {"ex2.approx.ftz.f32": 1, "rsqrt.approx.ftz.f32": 2, "div.full.f32": 1, "div.approx.f32": 1}
ULPS |= {"fma.rn.f64": 1}


def numbers(kind: np.dtype) -> np.ndarray:
    if kind.kind == "b":
        return np.array([False, True])
    if kind.kind == "f":
        return np.array(FLOATS).astype(kind)
    wrapped = sorted({x % 256**kind.itemsize for x in INTEGERS})
    return np.array(wrapped, f"u{kind.itemsize}").view(kind)


def of_16_bits(x: int, kind: torch.dtype = torch.bfloat16) -> float:
    return torch.tensor([x % 2**16], dtype=torch.uint16).view(kind).item()


def to_16_bits(x: float, kind: torch.dtype = torch.bfloat16) -> int:
    # 0x7fff is this architecture's NaN
    return 0x7FFF if x != x else torch.tensor([x]).to(kind).view(torch.uint16).item()


def halves(x: int, kind: torch.dtype) -> tuple[float, float]:
    return of_16_bits(x, kind), of_16_bits(x >> 16, kind)


def packed(low: int, high: int) -> int:
    return high << 16 | low


def numbers_of_16_bits(opcode: str, x: np.ndarray) -> np.ndarray:
    kind = torch.bfloat16 if "bf16" in opcode else torch.float16
    return torch.from_numpy(x.view("i2")).view(kind).float().numpy()


def flushed(x: float) -> float:
    return math.copysign(0.0, x) if abs(x) < 2.0**-126 else x


def fused(a: float, b: float, c: float) -> float:
    if not all(map(math.isfinite, (a, b, c))):
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return float(np.clip(float(exact), -1e300, 1e300)) if exact else a * b + c


def divided(a: float, b: float) -> float:
    return (np.float64(a) / np.float64(b)).item()


def larger(a: float, b: float) -> float:
    """The number, if the other is none; 0 is larger than -0."""
    if a == b == 0:
        return a + b
    return b if a != a else a if b != b else max(a, b)


def field(x: int, start: int, length: int) -> int:
    return (x % 2**32 >> start) % 2**length


def signed_field(x: int, start: int, length: int) -> int:
    found = field(x, start, length)
    return found - 2**length if found >> (length - 1) else found


def permuted(a: int, b: int, selector: int) -> int:
    both = a.to_bytes(4, "little") + b.to_bytes(4, "little")
    return int("".join(f"{both[int(digit)]:02x}" for digit in f"{selector % 2**16:04x}"), 16)


def references() -> dict[str, Callable[..., object]]:
    """Return by instruction what it computes, in Python's numbers, before that is made one of its type."""
    found: dict[str, Callable[..., object]] = {}
    for t in ("f32", "f64", "s16", "u16", "s32", "u32", "s64", "u64"):
        low = "" if t[0] == "f" else ".lo"
        found |= {f"add.{t}": operator.add, f"sub.{t}": operator.sub, f"mul{low}.{t}": operator.mul}
        found |= {f"min.{t}": lambda a, b: -larger(-a, -b), f"max.{t}": larger}
    for t in ("f32", "f64"):
        found |= {f"{name}.rn.{t}": found[f"{name}.{t}"] for name in ("add", "sub", "mul")}
        found |= {f"neg.{t}": operator.neg, f"abs.{t}": abs, f"fma.rn.{t}": fused}
        found |= {f"div.rn.{t}": divided}
    for t in ("f32", "f64", "f16"):
        for name, f in COMPARE.items():
            found[f"setp.{name}.{t}"] = lambda a, b, f=f: f(a, b) and a == a and b == b
            found[f"setp.{name}u.{t}"] = lambda a, b, f=f: f(a, b) or a != a or b != b
        found[f"setp.num.{t}"] = lambda a, b: a == a and b == b
        found[f"setp.nan.{t}"] = lambda a, b: a != a or b != b
    for name in [x.removesuffix("f16") for x in found if x.endswith("f16")]:
        f = found[f"{name}f16"]
        found[f"{name}bf16"] = lambda a, b, f=f: f(of_16_bits(a), of_16_bits(b))
        found[f"{name}bf16x2"] = lambda a, b, f=f: [
            f(x, y)
            for x, y in zip(halves(a, torch.bfloat16), halves(b, torch.bfloat16), strict=True)
        ]
    for t, kind in (("bf16x2", torch.bfloat16), ("f16x2", torch.float16)):
        found[f"max.{t}"] = lambda a, b, kind=kind: packed(
            *(
                to_16_bits(larger(*x), kind)
                for x in zip(halves(a, kind), halves(b, kind), strict=True)
            )
        )
        found[f"cvt.rn.{t}.f32"] = lambda a, b, kind=kind: packed(
            to_16_bits(b, kind), to_16_bits(a, kind)
        )
    found |= {
        "max.f16": larger,
        "max.bf16": lambda a, b: to_16_bits(larger(of_16_bits(a), of_16_bits(b))),
        "ex2.approx.ftz.f32": np.exp2,
        "rsqrt.approx.ftz.f32": lambda x: divided(1.0, np.sqrt(x)),
        "rsqrt.approx.f64": lambda x: divided(1.0, np.sqrt(x)),
        "div.full.f32": divided,
        "div.approx.f32": lambda a, b: divided(
            a, math.copysign(math.inf, b) if abs(b) > 2**126 else b
        ),
        "abs.ftz.f32": abs,
        "fma.rn.ftz.f32": fused,
        "bfe.u32": field,
        "bfe.s32": signed_field,
        "popc.b32": int.bit_count,
        "prmt.b32": permuted,
        "cvt.f32.bf16": of_16_bits,
        "cvt.f64.bf16": of_16_bits,
        "cvt.rn.bf16.f32": to_16_bits,
        "cvt.rmi.f64.f64": np.floor,
        "cvt.rpi.f64.f64": np.ceil,
        "cvt.rpi.ftz.f32.f32": np.ceil,
        "mul.hi.s32": lambda a, b: a * b >> 32,
        "mul.hi.u32": lambda a, b: a * b >> 32,
    }
    for t in ("f32", "f64"):
        found[f"cvt.rzi.s32.{t}"] = lambda x: 0 if x != x else int(max(-(2**31), min(2**31 - 1, x)))
    for bits in (16, 32, 64):
        for t in (f"s{bits}", f"u{bits}", f"b{bits}"):
            for name, f in COMPARE.items():
                if t[0] != "b" or name in ("eq", "ne"):
                    found[f"setp.{name}.{t}"] = f
            if t[0] != "b":
                found[f"mad.lo.{t}"] = found[f"mad.wide.{t}"] = lambda a, b, c: a * b + c
                found[f"shr.{t}"] = lambda a, by: a >> by
                found[f"mul.wide.{t}"] = operator.mul
        found |= {f"neg.s{bits}": operator.neg, f"not.b{bits}": operator.invert}
        found[f"shl.b{bits}"] = lambda a, by: a << min(by, 64)
    for t in ("pred", "b16", "b32", "b64"):
        found |= {f"and.{t}": operator.and_, f"or.{t}": operator.or_, f"xor.{t}": operator.xor}
    found["not.pred"] = operator.not_
    for opcode in OPERATIONS:  # what changes nothing but the type
        if opcode.startswith(("mov", "cvt")):
            found.setdefault(opcode, lambda x: x)
        if opcode.startswith("selp"):
            found[opcode] = lambda a, b, p: a if p else b
    return found


REFERENCES = references()
UNKNOWN = {  # arguments that the emulator refuses
    "bfe": lambda x, start, length: start > 31 or length == 0 or start + length > 32,
    "prmt": lambda a, b, selector: any(digit > "7" for digit in f"{selector % 2**16:04x}"),
}


@pytest.mark.parametrize("opcode", sorted(OPERATIONS.keys() - {"rcp.approx.ftz.f64"}))
@np.errstate(all="ignore")
def test_an_instruction_does_what_its_definition_says(opcode):
    operation, reference = OPERATIONS[opcode], REFERENCES[opcode]
    unknown = UNKNOWN.get(opcode.partition(".")[0], lambda *_: False)
    values = [numbers(kind) for kind in operation.arguments]
    rows = list(itertools.product(*values))
    known = [row for row in rows if not unknown(*(x.item() for x in row))]
    columns = [
        np.array(x, kind)
        for x, kind in zip(zip(*known, strict=True), operation.arguments, strict=True)
    ]
    found = np.asarray(operation.compute(*columns)).astype(operation.result)
    if found.ndim == 2:
        found = found.T
    flush = flushed if "ftz" in opcode else lambda x: x
    wanted = [reference(*(flush(x.item()) for x in row)) for row in known]
    if operation.result.kind in "iu":
        bits = 8 * operation.result.itemsize
        wanted = np.array([x % 2**bits for x in wanted], f"u{bits // 8}").view(operation.result)
    wanted = np.array([flush(x) for x in wanted] if operation.result.kind == "f" else wanted)
    wanted = wanted.astype(operation.result)
    if "f16" in opcode and operation.result.kind == "u":
        found, wanted = numbers_of_16_bits(opcode, found), numbers_of_16_bits(opcode, wanted)
    if opcode in ULPS:
        np.testing.assert_array_max_ulp(found, wanted, ULPS[opcode])
    else:
        np.testing.assert_array_equal(found, wanted)
    zeros = found == 0
    np.testing.assert_array_equal(np.signbit(found[zeros]), np.signbit(wanted[zeros]))
    for row in [row for row in rows if unknown(*(x.item() for x in row))][:10]:
        with pytest.raises(NotImplementedError):
            operation.compute(*(np.array([x]) for x in row))


@np.errstate(all="ignore")
def test_a_gross_reciprocal_has_twenty_bits_and_flushes():
    x = np.array([1e-308, -1e308])
    found = OPERATIONS["rcp.approx.ftz.f64"].compute(x)
    np.testing.assert_array_equal(found, [np.inf, -0.0])
    x = np.array([3.0, -0.1, 1e200, 7e-300])
    found = OPERATIONS["rcp.approx.ftz.f64"].compute(x)
    np.testing.assert_allclose(found, 1 / x, rtol=2.0**-19)
    assert not (found.view(np.uint64) % 2**32).any()


def test_exponentials_of_integers_are_exact_and_others_mostly_not():
    exp2 = OPERATIONS["ex2.approx.ftz.f32"].compute
    x = np.arange(-126, 127, dtype=np.float32)
    np.testing.assert_array_equal(exp2(x), 2.0**x)
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    assert 0.5 < (exp2(x) != np.exp2(x.astype(np.float64)).astype(np.float32)).mean() < 0.8


def test_a_product_with_one_rounding_keeps_what_two_would_lose():
    fma = OPERATIONS["fma.rn.f32"].compute
    a = np.array([1 + 2.0**-23], np.float32)
    np.testing.assert_array_equal(fma(a, a, -np.float32([1 + 2.0**-22])), np.float32([2.0**-46]))

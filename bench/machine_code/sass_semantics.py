"""What the instructions do that NVIDIA's compiler makes loop counters with; the result of any other is unknown."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from bench.machine_code.sass_state import MASK, PREDICATE, Number, State, Truth, decide

T = TypeVar("T")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "LT": operator.lt, "LE": operator.le, "GT": operator.gt,
    "GE": operator.ge, "EQ": operator.eq, "NE": operator.ne,
}  # fmt: skip
_REGISTER = re.compile(r"(U?R)(\d+|Z)$")


def execute(state: State, opcode: str, operands: Sequence[str], certain: bool) -> None:
    """Carry out an instruction.  not certain: it may or may not run."""
    name, *modifiers = opcode.split(".")
    if name[0] == "U" and name[1:] in _NUMBERS | _TRUTHS:
        name = name[1:]  # the same for registers of the whole warp
    registers, predicates, sources = _split(name, operands)
    numbers: list[Number] = []
    truths: list[Truth] = []
    if certain and name in _NUMBERS:
        numbers = _NUMBERS[name](state, modifiers, sources)
    if certain and name in _TRUTHS:
        truths = _TRUTHS[name](state, modifiers, sources)
    for register in registers:
        for i, each in enumerate(_consecutive(register, _words(name, modifiers))):
            _set(state.registers, each, numbers[i] if i < len(numbers) else None)
    for i, predicate in enumerate(predicates):
        _set(state.predicates, predicate, truths[i] if i < len(truths) else None)


def _set(known: dict[str, T], name: str, value: T | None) -> None:
    if value is None:
        known.pop(name, None)
    else:
        known[name] = value


def _split(name: str, operands: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The registers and predicates that an instruction sets, and its other operands."""
    if name == "R2P":
        return [], [f"P{i}" for i in range(7)], list(operands)
    if name.endswith("SETP") or name == "PLOP3":
        return [], list(operands[:2]), list(operands[2:])
    registers: list[str] = []
    predicates: list[str] = []
    for i, operand in enumerate(operands):
        if PREDICATE.match(operand):
            predicates.append(operand)
        elif _REGISTER.match(operand) and (not registers or name == "LDG"):
            registers.append(operand)
        else:
            return registers, predicates, list(operands[i:])
    return registers, predicates, []


def _words(name: str, modifiers: Sequence[str]) -> int:
    """How many registers each result fills."""
    if name == "SHF":
        return 1  # 64 bits are shifted, of which it is one half
    for words, bits in ((8, "256"), (4, "128"), (2, "64"), (2, "S64"), (2, "U64"), (2, "WIDE")):
        if bits in modifiers:
            return words
    if name in ("DADD", "DMUL", "DFMA", "FADD2", "FMUL2", "FFMA2") or modifiers[:1] == ["F64"]:
        return 2
    if name == "LDSM" and modifiers[-1] in ("2", "4"):
        return int(modifiers[-1])
    return 2 if name == "CS2R" and "32" not in modifiers else 1


def _consecutive(register: str, words: int) -> Iterator[str]:
    match = _REGISTER.match(register)
    assert match
    if match[2] != "Z":
        yield from (f"{match[1]}{int(match[2]) + i}" for i in range(words))


def _add(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    total = _sum(state, modifiers, sources)
    return [] if total is None else [total & MASK]


def _carry(state: State, modifiers: list[str], sources: list[str]) -> list[Truth]:
    total = _sum(state, modifiers, sources)
    # a subtraction carries where it does not borrow
    return [] if total is None or any(x.startswith(("-", "~")) for x in sources) else [total > MASK]


def _sum(state: State, modifiers: list[str], sources: list[str]) -> Number:
    carries = [state.predicate(x) for x in sources if PREDICATE.match(x)]
    terms = [state.number(x) for x in sources if not PREDICATE.match(x)] + carries
    if "64" in modifiers or None in terms:
        return None
    return sum(x for x in terms if x is not None)


def _multiply_add(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    a, b = (state.number(x) for x in sources[:2])
    rest = _sum(state, modifiers, sources[2:])
    if {"HI", "WIDE"} & set(modifiers) or rest is None:
        return []
    if 0 in (a, b):
        return [rest & MASK]
    return [] if a is None or b is None else [(a * b + rest) & MASK]


def _shift_add(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    low, addend, *high, shift = (state.number(x) for x in sources)
    if {"X", "SX32"} & set(modifiers) or low is None or addend is None or shift is None:
        return []
    if "HI" not in modifiers:
        return [((low << shift) + addend) & MASK]
    return [] if high[0] is None else [((((high[0] << 32 | low) << shift) >> 32) + addend) & MASK]


def _shift(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    low, shift, high = (state.number(x) for x in sources)
    if shift is None or shift > 31:
        return []
    match modifiers:
        case ["L", "U32"] if low is not None:
            return [(low << shift) & MASK]
        case ["R", "U32", "HI"] if high is not None:
            return [high >> shift]
        case ["R", "S32", "HI"] if high is not None:
            return [(_signed(high) >> shift) & MASK]
    return []


def _logic(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    a, b, c, table = (state.number(x) for x in sources[:4])
    if a is None or b is None or c is None or table is None:
        return []
    result = 0
    for row in range(8):
        if table >> row & 1:
            result |= (
                (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c) & MASK
            )
    return [result]


def _select(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    condition = state.predicate(sources[2])
    return [] if condition is None else [state.number(sources[0 if condition else 1])]


def _copy(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    return [] if modifiers else [state.number(sources[0])]


def _zero(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    return [state.number(sources[0])] * 2


def _half_constants(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    """A multiply-add of nothing but its addend, a pair of float16: how constants are moved to spare another unit."""
    if modifiers not in ([], ["MMA"]) or [x.lstrip("-") for x in sources[:2]] != ["RZ", "RZ"]:
        return []
    try:
        high, low = (int(np.float16(x).view(np.uint16)) for x in sources[2:4])
    except ValueError:
        return []
    return [high << 16 | low]


def _load_constant(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    if not set(modifiers) <= {"64", "128"}:
        return []
    return state.constants(sources[0], _words("LDC", modifiers))


def _pack_predicates(state: State, modifiers: list[str], sources: list[str]) -> list[Number]:
    value, mask = (state.number(x) for x in sources[1:])
    if modifiers or value is None or mask is None:
        return []
    for i in range(7):
        if mask >> i & 1:
            bit = state.predicate(f"P{i}")
            if bit is None:
                return []
            value = (value & ~(1 << i)) | (bit << i)
    return [value]


def _compare(state: State, modifiers: list[str], sources: list[str]) -> list[Truth]:
    how, *rest = modifiers
    combine = {"AND": operator.and_, "OR": operator.or_, "XOR": operator.xor}[
        next(x for x in rest if x not in ("U32", "EX"))
    ]
    a, b = (state.number(x) for x in sources[:2])
    result: Truth = None
    if a is not None and b is not None:
        if "U32" not in rest:
            a, b = _signed(a), _signed(b)
        result = _COMPARE[how](a, b)
        if "EX" in rest and a == b:
            # the upper halves of 64 bits: the lower ones have been compared before
            result = state.predicate(sources[3])
    other = state.predicate(sources[2])
    return [decide(combine, result, other), decide(lambda x, y: combine(not x, y), result, other)]


def _predicate_logic(state: State, modifiers: list[str], sources: list[str]) -> list[Truth]:
    inputs = [state.predicate(x) for x in sources[:3]]

    def look_up(table: int) -> Callable[..., bool]:
        return lambda a, b, c: bool(table >> (4 * a + 2 * b + c) & 1)

    return [decide(look_up(int(x, 16)), *inputs) for x in sources[3:]]


def _signed(x: int) -> int:
    return x - (1 << 32) if x >> 31 else x


_NUMBERS: dict[str, Callable[[State, list[str], list[str]], list[Number]]] = {
    "IADD3": _add,
    "VIADD": _add,
    "IMAD": _multiply_add,
    "LEA": _shift_add,
    "SHF": _shift,
    "LOP3": _logic,
    "SEL": _select,
    "MOV": _copy,
    "R2UR": _copy,
    "CS2R": _zero,
    "HFMA2": _half_constants,
    "LDC": _load_constant,
    "LDCU": _load_constant,
    "P2R": _pack_predicates,
}
_TRUTHS: dict[str, Callable[[State, list[str], list[str]], list[Truth]]] = {
    "IADD3": _carry,
    "ISETP": _compare,
    "PLOP3": _predicate_logic,
}

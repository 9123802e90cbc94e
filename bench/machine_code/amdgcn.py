"""How often a wave of an AMD kernel runs each instruction, from the assembly and the kernel's arguments.

As in sass.py: scalars that follow from the arguments are numbers, everything else is unknown, whether lanes are
active among it, and a branch that depends on something unknown is not taken, but for one over a loop that moves data.
All lanes of a wave are taken to be active.  A loop that is left in the middle, by a branch that depends on something
unknown, runs once.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.machine_code.opcodes import moves_data

_LINE = re.compile(
    r"^(?:\t(?P<opcode>[a-z]\w+)(?:[ \t]+(?P<operands>[^;\n]*))?|(?P<label>\.L\w+):)", re.MULTILINE
)
_RANGE = re.compile(r"([sv])(?:(\d+)|\[(\d+):(\d+)\])$")
_MASK = 0xFFFFFFFF
_ALL_LANES = (1 << 64) - 1
_MOST_STEPS = 10_000_000
_KEEPS_SCC = ("s_mov", "s_cselect", "s_mul_", "s_load", "s_brev", "s_nop", "s_waitcnt", "s_barrier")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "eq": operator.eq, "lg": operator.ne, "ne": operator.ne,
}  # fmt: skip
# Of whole operands, 32 or 64 bits; scc tells whether the result is not 0.
_LOGIC: dict[str, Callable[[int, int], int]] = {
    "s_and": operator.and_,
    "s_or": operator.or_,
    "s_xor": operator.xor,
    "s_andn2": lambda a, b: a & ~b,
    "s_lshl": lambda a, b: a << (b & 63),
    "s_lshr": lambda a, b: a >> (b & 63),
}
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "s_add_i32": operator.add,
    "s_add_u32": operator.add,
    "s_sub_i32": operator.sub,
    "s_mul_i32": operator.mul,
    "v_add_u32_e32": operator.add,
}
_COPIES = ("s_mov_b32", "s_mov_b64", "v_mov_b32_e32", "v_readfirstlane_b32")


@dataclass(frozen=True)
class Code:
    instructions: list[tuple[str, tuple[str, ...]]]
    labels: dict[str, int]

    @classmethod
    def parse(cls, assembly: str) -> Code:
        code = cls([], {})
        for match in _LINE.finditer(assembly):
            if match["label"]:
                code.labels[match["label"]] = len(code.instructions)
            else:
                operands = tuple(x.strip() for x in (match["operands"] or "").split(",") if x)
                code.instructions.append((match["opcode"], operands))
        return code

    def count(self) -> Counter[str]:
        """How often each opcode stands in the code."""
        return Counter(opcode for opcode, _ in self.instructions)

    def run(self, arguments: Mapping[int, int]) -> Counter[str]:
        """How often a wave runs each opcode.  arguments: words of the kernel's arguments by their offset."""
        state = _State(arguments)
        total: Counter[str] = Counter()
        repeated: set[int] = set()  # ends of loops that have been there
        at = 0
        for _ in range(_MOST_STEPS):
            opcode, operands = self.instructions[at]
            total[opcode] += 1
            if opcode == "s_endpgm":
                return total
            if "branch" in opcode:
                target = self.labels[operands[0]]
                taken = state.is_taken(opcode)
                if taken is None:
                    if self._moves_data(at) and self._comes_from(target, range(at, at + 1)):
                        raise ValueError(f"cannot tell how often {opcode} {operands[0]} repeats")
                    end = self._end_of_loop_left(at, target)
                    taken = end in repeated or self._has_loop_that_moves_data(at, target)
                    repeated.discard(end)
                elif opcode == "s_branch" and target <= at:
                    repeated.add(at)
                at = target if taken else at + 1
                continue
            state.execute(opcode, operands)
            at += 1
        raise ValueError("does not end")

    def _end_of_loop_left(self, at: int, target: int) -> int:
        """The branch back in a loop that a branch leads out of; -1 where it leads out of none."""
        for end in range(at + 1, target):
            opcode, operands = self.instructions[end]
            if opcode == "s_branch" and self.labels[operands[0]] <= at:
                if self._moves_data(end):
                    raise ValueError(f"cannot tell how often {opcode} {operands[0]} repeats")
                return end
        return -1

    def _has_loop_that_moves_data(self, start: int, end: int) -> bool:
        """Whether the branch at the start is over one.  Code at the end of which there is a way back is out of line."""
        return any(
            "branch" in self.instructions[at][0]
            and start <= self.labels[self.instructions[at][1][0]]
            and self._moves_data(at)
            for at in range(start, end)
        ) and not self._comes_from(end, range(start + 1, end))

    def _comes_from(self, start: int, there: range) -> bool:
        """Whether there is a way from the start to an instruction there."""
        ways, seen = [start], set()
        while ways:
            at = ways.pop()
            while at not in seen and at not in there:
                seen.add(at)
                opcode, operands = self.instructions[at]
                if "branch" in opcode:
                    ways.append(self.labels[operands[0]])
                if opcode in ("s_branch", "s_endpgm"):
                    break
                at += 1
            else:
                if at in there:
                    return True
        return False

    def _moves_data(self, end: int) -> bool:
        """Whether the loop that ends here does; what a forward branch skips is none."""
        start = self.labels[self.instructions[end][1][0]]
        return any(moves_data(opcode) for opcode, _ in self.instructions[start:end])


class _State:
    """What is known of a wave's registers; vector registers of which all lanes are equal among them."""

    def __init__(self, arguments: Mapping[int, int]) -> None:
        self._arguments = arguments
        self._registers: dict[str, int] = {"s0": 0, "s1": 0}  # where the arguments are
        self._scc: bool | None = None

    def is_taken(self, opcode: str) -> bool | None:
        if opcode == "s_branch":
            return True
        condition = opcode.removeprefix("s_cbranch_")
        if condition.startswith("exec"):
            return None
        if condition.startswith("scc"):
            return None if self._scc is None else self._scc == (condition == "scc1")
        value = self._number(condition.removesuffix("z").removesuffix("n"))
        return None if value is None else (value != 0) == condition.endswith("nz")

    def execute(self, opcode: str, operands: tuple[str, ...]) -> None:
        value, scc = self._result(opcode, operands)
        if opcode.startswith("s_") and not opcode.startswith(_KEEPS_SCC):
            self._scc = scc
        if opcode.startswith("s_cmp") or not operands:
            return
        second = "_co_" in opcode or opcode.startswith(("v_div_scale", "v_mad_u64", "v_mad_i64"))
        for name in operands[:1] + operands[1:2] * second:
            for i, register in enumerate(_registers(name)):
                self._registers.pop(register, None)
                if value is not None:
                    self._registers[register] = (value >> (32 * i)) & _MASK
        if opcode.startswith("s_load_dword"):
            self._load(*operands)

    def _result(self, opcode: str, operands: tuple[str, ...]) -> tuple[int | None, bool | None]:
        """The value of the first operand afterwards, and scc."""
        if opcode.startswith("s_cselect"):
            value = None if self._scc is None else self._number(operands[1 if self._scc else 2])
            return value, None
        if opcode.startswith("v_cndmask_b32"):
            # where all lanes choose the same
            source = {0: 1, _ALL_LANES: 2}.get(self._number(operands[3]))
            return (None if source is None else self._number(operands[source])), None
        a, b = (self._number(x) for x in (*operands, "", "", "")[1:3])
        if opcode in _COPIES:
            return a, None
        if match := re.match(r"s_cmp_(\w\w)_([iu])", opcode):
            truth = self._compare(*operands[:2], *match.groups())
            return None, truth
        if match := re.match(r"s_cmpk_(\w\w)_([iu])", opcode):
            # a constant of 16 bits
            constant = int(operands[1], 0) & 0xFFFF
            right = str(_signed(constant, 16) if match[2] == "i" else constant)
            return None, self._compare(operands[0], right, *match.groups())
        if match := re.match(r"v_cmp_(\w\w)_([iu])32", opcode):
            truth = self._compare(*operands[1:3], *match.groups())
            return None if truth is None else -truth, None
        if opcode == "s_addk_i32":
            a, b = self._number(operands[0]), self._number(operands[1])
            return None if a is None or b is None else a + _signed(b & 0xFFFF, 16), None
        if opcode.startswith("s_ashr_i32"):
            return None if a is None or b is None else _signed(a) >> b, None
        if opcode.startswith(("s_and_b", "s_andn2_b")) and (
            a == 0 or (b == 0 and "n2" not in opcode)
        ):
            return 0, False
        if a is None or b is None:
            return None, None
        if function := _ARITHMETIC.get(opcode):
            return function(a, b), None
        name, _, bits = opcode.rpartition("_b")
        if function := _LOGIC.get(name):
            value = function(a, b) & ((1 << int(bits)) - 1)
            return value, value != 0
        return None, None

    def _compare(self, left: str, right: str, how: str, sign: str) -> bool | None:
        a, b = self._number(left), self._number(right)
        if a is None or b is None:
            return None
        if sign == "i":
            a, b = _signed(a), _signed(b)
        return _COMPARE[how](a, b)

    def _number(self, operand: str) -> int | None:
        """An operand, unsigned; constants fill 64 bits."""
        if operand == "exec":
            return _ALL_LANES
        if re.fullmatch(r"-?\d+|0x[0-9a-f]+", operand):
            return int(operand, 0)
        words = [self._registers.get(name) for name in _registers(operand)]
        if not words or None in words:
            return None
        return sum(word << (32 * i) for i, word in enumerate(words) if word is not None)

    def _load(self, to: str, address: str, offset: str) -> None:
        if self._number(address) == 0 and (start := self._number(offset)) is not None:
            for i, register in enumerate(_registers(to)):
                if (value := self._arguments.get(start + 4 * i)) is not None:
                    self._registers[register] = value


def _registers(operand: str) -> list[str]:
    if operand == "vcc":
        return ["vcc_lo", "vcc_hi"]
    match = _RANGE.match(operand)
    if match is None:
        return []
    first, last = (match[2], match[2]) if match[2] else (match[3], match[4])
    return [f"{match[1]}{i}" for i in range(int(first), int(last) + 1)]


def _signed(x: int, bits: int = 32) -> int:
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x

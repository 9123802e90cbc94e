"""How often a warp of an NVIDIA kernel runs each instruction, from the disassembly and the kernel's arguments.

The integer part of the code is run: whatever follows from the arguments is a number, everything else (scores, thread
indices, addresses) is unknown.  Loop counters are numbers, so loops end when they do on a GPU, however the assembler
has unrolled them.  A forward branch that depends on something unknown is not taken, so what it would skip counts,
except a call: those are the rare paths of float64 divisions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bench.machine_code.sass_semantics import execute
from bench.machine_code.sass_state import PREDICATE, State, decide

_LINE = re.compile(
    r"^(?:\s+/\*[0-9a-f]{4,}\*/\s+(?:@(?P<guard>!?U?P\w+)\s+)?(?P<opcode>[A-Z][\w.]*)"
    r"\s*(?P<operands>.*?)\s*;|(?P<label>\.L\w+):)",
    re.MULTILINE,
)
_MOST_STEPS = 10_000_000
SWITCHED_OFF = "switched off"  # issued, but known to do nothing, for its predicate is false


@dataclass(frozen=True)
class Instruction:
    guard: str  # the predicate that it runs under
    opcode: str  # with its modifiers: "LDG.E.128"
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    instructions: list[Instruction]  # without the padding behind them
    labels: dict[str, int]

    @classmethod
    def parse(cls, disassembly: str) -> Code:
        code = cls([], {})
        for match in _LINE.finditer(disassembly):
            if match["label"]:
                code.labels[match["label"]] = len(code.instructions)
            else:
                operands = tuple(x.strip() for x in match["operands"].split(",") if x.strip())
                code.instructions.append(
                    Instruction(match["guard"] or "PT", match["opcode"], operands)
                )
        while code._ends_in_padding():
            code.instructions.pop()
        return code

    def count(self) -> Counter[str]:
        """How often each opcode stands in the code."""
        return Counter(instruction.opcode for instruction in self.instructions)

    def run(self, constants: Mapping[int, int]) -> Counter[str]:
        """How often a warp runs each opcode.  constants: words of the constant bank by their offset."""
        state = State(constants)
        total: Counter[str] = Counter()
        at = 0
        for _ in range(_MOST_STEPS):
            instruction = self.instructions[at]
            runs = state.predicate(instruction.guard)
            total[SWITCHED_OFF if runs is False else instruction.opcode] += 1
            name = instruction.opcode.split(".")[0]
            if name == "EXIT" and runs:
                return total
            if name == "CALL" and runs is not False:
                raise ValueError(f"cannot follow {instruction}")
            if name == "BRA" and self._is_taken(at, state):
                at = self._target(at)
                continue
            if runs is not False:
                execute(state, instruction.opcode, instruction.operands, certain=runs is True)
            at += 1
        raise ValueError("does not end")

    def _is_taken(self, at: int, state: State) -> bool:
        instruction, target = self.instructions[at], self._target(at)
        conditions = [instruction.guard, *filter(PREDICATE.match, instruction.operands)]
        taken = decide(lambda *x: all(x), *map(state.predicate, conditions))
        if taken is not None:
            return taken
        if target <= at:
            raise ValueError(f"cannot tell how often {instruction} repeats")
        skipped = {x.opcode.split(".")[0] for x in self.instructions[at + 1 : target]}
        return "CALL" in skipped and "BRA" not in skipped

    def _target(self, at: int) -> int:
        label = re.search(r"`\((\.L\w+)\)", self.instructions[at].operands[-1])
        assert label, self.instructions[at]
        return self.labels[label[1]]

    def _ends_in_padding(self) -> bool:
        last = len(self.instructions) - 1
        opcode = self.instructions[last].opcode
        return opcode == "NOP" or (opcode == "BRA" and self._target(last) == last)

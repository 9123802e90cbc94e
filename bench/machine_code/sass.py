"""How often a warp of an NVIDIA kernel runs each instruction, from the disassembly and the kernel's arguments.

The integer part of the code is run: whatever follows from the arguments is a number, everything else (scores, thread
indices, addresses) is unknown.  Loop counters are numbers, so loops end when they do on a GPU, however the assembler
has unrolled them.  A branch that depends on something unknown is not taken: a loop that ends by what the scores are
runs once, which is an error where it moves data, and what a forward branch or an exit would skip counts, except a call
and a loop that moves data: those are the rare paths of float64 divisions and of ignored rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bench.machine_code.opcodes import moves_data
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
            if name == "EXIT" and (runs or (runs is None and self._is_seldom(at + 1, None))):
                return total
            leaves = name == "CALL" and runs is not False and self._repeats(at + 1, runs)
            if name == "CALL" and runs and not leaves:
                raise ValueError(f"cannot follow {instruction}")
            if leaves or (name == "BRA" and self._is_taken(at, state)):
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
        self._check_repetition(at)
        return self._is_seldom(at + 1, target)

    def _repeats(self, at: int, leaves: bool | None) -> bool:
        """Whether a loop has its end here, out of which the instruction before leads; leaves: whether it does."""
        instruction = self.instructions[at]
        if (instruction.guard, instruction.opcode) != ("PT", "BRA") or self._target(at) >= at:
            return False
        if leaves is None:
            self._check_repetition(at)
        return True

    def _check_repetition(self, end: int) -> None:
        if self._moves_data(end):
            raise ValueError(f"cannot tell how often {self.instructions[end]} repeats")

    def _is_seldom(self, start: int, end: int | None) -> bool:
        """Whether these instructions are one of the rare paths."""
        part = range(len(self.instructions))[start:end]
        branches = [at for at in part if self.instructions[at].opcode.startswith("BRA")]
        if not branches:
            return any(self.instructions[at].opcode.startswith("CALL") for at in part)
        return any(start <= self._target(at) < at and self._moves_data(at) for at in branches)

    def _moves_data(self, end: int) -> bool:
        """Whether the loop that ends here does; what a forward branch skips is none."""
        return any(moves_data(x.opcode) for x in self.instructions[self._target(end) : end])

    def _target(self, at: int) -> int:
        label = re.search(r"`\((\.L\w+)\)", self.instructions[at].operands[-1])
        assert label, self.instructions[at]
        return self.labels[label[1]]

    def _ends_in_padding(self) -> bool:
        last = len(self.instructions) - 1
        opcode = self.instructions[last].opcode
        return opcode == "NOP" or (opcode == "BRA" and self._target(last) == last)

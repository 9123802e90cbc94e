"""The text of a PTX kernel, read: https://docs.nvidia.com/cuda/parallel-thread-execution."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^\s,{}\[\]]+")
_DECLARATION = re.compile(r"\.reg\s+\.(\w+)\s+([%\w]+)(?:<\d+>)?")


@dataclass(frozen=True)
class Instruction:
    opcode: str  # with its modifiers and types
    operands: tuple[str, ...]
    guard: str | None  # a predicate, and its value where the instruction has an effect
    expected: bool
    source: str  # the line of the kernel that it comes from

    def __str__(self) -> str:
        return f"{self.opcode} {', '.join(self.operands)} of {self.source}"


@dataclass(frozen=True)
class Listing:
    """A kernel: its parameters in order, its registers' types by the beginnings of their names, its instructions."""

    parameters: tuple[str, ...]
    threads: int  # of a program
    registers: dict[str, str]
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]  # the instruction that each stands before


def parse(text: str) -> Listing:
    head, body = text[text.index(".entry") :].split("\n{", 1)
    (threads,) = re.findall(r"\.reqntid\s+(\d+)", head)
    registers: dict[str, str] = {}
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    source = "?"
    for line in body[: body.index("\n}")].splitlines():
        code, _, comment = line.partition("//")
        if ".loc" in code:
            source = comment.strip() or source
            continue
        if label := re.fullmatch(r"\s*(\$\w+):\s*", code):
            labels[label[1]] = len(instructions)
            continue
        for statement in re.split(r";|\s*\{\s*(?=\.reg)|;\s*\}", code):
            statement = statement.strip()
            if statement in ("", "}") or statement.startswith(".pragma"):
                continue
            if declared := _DECLARATION.fullmatch(statement):
                if declared[1] not in ("pred", "b16", "b32", "b64"):
                    raise NotImplementedError(f"a register of type {declared[1]}")
                registers[declared[2]] = declared[1]
                continue
            found = _STATEMENT.fullmatch(statement)
            if found is None:
                raise ValueError(f"no PTX statement: {statement}")
            negated, guard, opcode, operands = found.groups()
            operands = tuple(_OPERAND.findall(operands))
            instructions.append(Instruction(opcode, operands, guard, not negated, source))
    parameters = re.findall(r"\.param\s.*?(\w+)\s*(?:,|$)", head, re.MULTILINE)
    return Listing(tuple(parameters), int(threads), registers, tuple(instructions), labels)

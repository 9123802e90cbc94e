"""What is known of a warp's registers while its code is followed: whole numbers of 32 bits, and predicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product

PREDICATE = re.compile(r"!?U?P(?:\d|T)$")
_CONSTANT = re.compile(r"c\[0x0\]\[(0x[0-9a-f]+)\]$")
MASK = 0xFFFFFFFF

Number = int | None  # unsigned; None: unknown
Truth = bool | None


def decide(function: Callable[..., bool], *inputs: Truth) -> Truth:
    """function(*inputs), if it is the same whatever the unknown ones are."""
    choices = [(False, True) if x is None else (x,) for x in inputs]
    results = {bool(function(*choice)) for choice in product(*choices)}
    return results.pop() if len(results) == 1 else None


class State:
    def __init__(self, constants: Mapping[int, int]) -> None:
        self._constants = constants
        self.registers: dict[str, int] = {}
        self.predicates: dict[str, bool] = {}

    def predicate(self, name: str) -> Truth:
        negated, name = name.startswith("!"), name.removeprefix("!")
        value = True if name in ("PT", "UPT") else self.predicates.get(name)
        return None if value is None else value != negated

    def number(self, operand: str) -> Number:
        operand = operand.removesuffix(".reuse")
        if operand.startswith(("-", "~")):
            value = self.number(operand[1:])
            return None if value is None else (-value if operand[0] == "-" else ~value) & MASK
        if operand in ("RZ", "URZ", "SRZ"):
            return 0
        if operand.startswith("0x"):
            return int(operand, 16) & MASK
        if _CONSTANT.match(operand):
            return self.constants(operand, 1)[0]
        return self.registers.get(operand)

    def constants(self, operand: str, words: int) -> list[Number]:
        match = _CONSTANT.match(operand)
        if match is None:
            return [None] * words
        return [self._constants.get(int(match[1], 16) + 4 * i) for i in range(words)]

"""What there is to know of the machine code of a kernel that Triton has compiled."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import triton

from bench.machine_code import amdgcn, opcodes, sass

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_NUMBERS = {"i32": 4, "i64": 8}  # bytes of the types of whole numbers among the arguments


@dataclass(frozen=True)
class MachineCode:
    registers: int
    stack: int  # bytes a lane
    spills: int
    shared: int  # bytes a program
    static: Counter[str]  # opcodes in the code
    executed: Counter[str]  # opcodes that a warp runs


def analyse(compiled: Any, arguments: Mapping[str, Any]) -> MachineCode:
    """compiled: Triton's; arguments: what it would be launched with, by name."""
    words = _words(compiled.src.signature, arguments)
    if "cubin" in compiled.asm:
        return _nvidia(compiled.asm["cubin"], compiled.metadata.shared, words)
    return _amd(compiled.asm["amdgcn"], compiled.metadata.shared, words)


def _words(signature: Mapping[str, str], arguments: Mapping[str, Any]) -> dict[int, int]:
    """The whole numbers among a kernel's arguments; all others are pointers or float64."""
    words: dict[int, int] = {}
    offset = 0
    for argument, type_ in signature.items():
        if type_ == "constexpr":
            continue
        size = _NUMBERS.get(type_, 8)
        offset = -(-offset // size) * size
        if type_ in _NUMBERS:
            for i in range(0, size, 4):
                words[offset + i] = arguments[argument] >> (8 * i) & 0xFFFFFFFF
        offset += size
    return words


def _nvidia(cubin: bytes, shared: int, arguments: Mapping[int, int]) -> MachineCode:
    usage, elf, code = _disassembled(cubin)
    # size and place of the arguments in the constant bank
    start = _number(r"EIATTR_PARAM_CBANK\n.*\n\s*Value:\s+\w+ 0x\w+(\w{4})\b", elf, 16)
    static = code.count()
    return MachineCode(
        registers=_number(r"REG:(\d+)", usage),
        stack=_number(r"STACK:(\d+)", usage),
        spills=opcodes.spills(static),
        shared=shared,
        static=static,
        executed=code.run({start + offset: word for offset, word in arguments.items()}),
    )


@lru_cache(maxsize=8)
def _disassembled(cubin: bytes) -> tuple[str, str, sass.Code]:
    """What it uses, its sections and its code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _output("cuobjdump", "-res-usage", file.name)
        elf = _output("cuobjdump", "-elf", file.name)
        return usage, elf, sass.Code.parse(_output("nvdisasm", "-c", file.name))


def _amd(assembly: str, shared: int, arguments: Mapping[int, int]) -> MachineCode:
    code = amdgcn.Code.parse(assembly)
    return MachineCode(
        registers=_number(r"\.vgpr_count:\s*(\d+)", assembly),
        stack=_number(r"\.private_segment_fixed_size:\s*(\d+)", assembly),
        spills=_number(r"\.vgpr_spill_count:\s*(\d+)", assembly)
        + _number(r"\.sgpr_spill_count:\s*(\d+)", assembly),
        shared=shared,
        static=code.count(),
        executed=code.run(arguments),
    )


def _output(tool: str, *args: str) -> str:
    return subprocess.run([_TOOLS / tool, *args], check=True, capture_output=True, text=True).stdout


def _number(pattern: str, text: str, base: int = 10) -> int:
    match = re.search(pattern, text)
    assert match, f"no {pattern} in {text[:1000]}"
    return int(match[1], base)

"""The facts of a compiled kernel are counted in its machine code."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import triton

from bench.ahead_of_time import Case, compile_case
from bench.processes import processes

_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
# An instruction may be of many kinds, or of none: moves, predicates, what is of a whole warp.
_KINDS = {
    "spills": r"(?:LDL|STL)\b",
    "exp2": r"MUFU\.EX2",
    "special": r"MUFU\b",
    "float32": r"(?:FADD|FMUL|FFMA)2?\b",
    "float64": r"D(?:ADD|MUL|FMA|SETP|MNMX)\b",
    "integer": r"U?(?:IMAD|IADD3|LEA|LOP3|SHF|ISETP)\b|V?IMNMX\b|VIADD",
    "choices": r"(?:FMNMX|FSEL|FSETP?|SEL)\b",
    "conversions": r"(?:F2F|F2I|I2F|F2FP|I2FP|FRND)\b",
    "shuffles": r"SHFL\b",
    "shared accesses": r"(?:LDSM?|STSM?)\b",
    "barriers": r"BAR\b",
    "branches": r"(?:BRA|BRX|CALL)\b",
}
_ACCESS = re.compile(r"(LD|ST)G?\.E\b(?:.*\.[US]?(8|16|64|128|256)\b)?")
_OF_AMD = {
    "registers": "vgpr_count",
    "stack bytes": "private_segment_fixed_size",
    "vector spills": "vgpr_spill_count",
    "scalar spills": "sgpr_spill_count",
}

Facts = dict[str, int]


def compile_all(jobs: Iterable[tuple[Case, str]]) -> Iterator[dict[str, Facts]]:
    """Yield the facts of the launches of each (case, architecture), by name; what takes longest comes first."""
    in_order = sorted(jobs, key=lambda job: (-(job[0].k or 0), str(job)))
    with processes(2) as pool:
        yield from pool.map(_compile, *zip(*in_order, strict=True))


def _compile(case: Case, architecture: str) -> dict[str, Facts]:
    return {name: facts(x) for name, x in compile_case(case, architecture).items()}


def facts(compiled: Any) -> Facts:
    """Count registers, spills and bytes of stack of a lane, bytes of shared memory of a program, and instructions.

    compiled: Triton's.  Instructions are counted in all, by kind, and as loads and stores of so many bits of a lane in
    global memory; for AMD's GPUs there are none of these counts.
    """
    shared = {"shared bytes": compiled.metadata.shared}
    if "cubin" in compiled.asm:
        return of_disassembly(_disassembled(compiled.asm["cubin"])) | shared
    found = {
        fact: _number(rf"\.{name}:\s*(\d+)", compiled.asm["amdgcn"])
        for fact, name in _OF_AMD.items()
    }
    return found | {"spills": found.pop("vector spills") + found.pop("scalar spills")} | shared


def _disassembled(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_CUOBJDUMP, "-res-usage", "-sass", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def of_disassembly(text: str) -> Facts:
    opcodes = Counter(_INSTRUCTION.findall(text))
    del opcodes["NOP"]  # padding
    found = {
        "registers": _number(r"REG:(\d+)", text),
        "stack bytes": _number(r"STACK:(\d+)", text),
        "instructions": opcodes.total(),
    }
    for kind, pattern in _KINDS.items():
        found[kind] = sum(n for opcode, n in opcodes.items() if re.match(pattern, opcode))
    accesses: Counter[str] = Counter()
    for opcode, n in opcodes.items():
        if match := _ACCESS.match(opcode):
            kind = "loads" if match[1] == "LD" else "stores"
            accesses[f"{kind} of {match[2] or 32} bits"] += n
    return found | dict(accesses)


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    assert match, f"no {pattern} in {text[:1000]}"
    return int(match[1])

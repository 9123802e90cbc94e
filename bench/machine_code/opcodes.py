"""What opcodes are: accesses to global memory by their width, and instructions by what executes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

# The execution units are those of an NVIDIA multiprocessor.  What is not known for sure to keep one of them busy
# (moves, instructions for a whole warp, branches) only takes its turn to be issued.
_NVIDIA = {
    "special": r"MUFU\b",
    "float64": r"D(?:ADD|MUL|FMA|SETP|MNMX)\b",
    "fma unit": r"(?:FADD2?|FMUL2?|FFMA2?|IMAD)\b",
    "alu": r"(?:FMNMX|FSEL|FSETP?|ISETP|IADD3|VIADD|V?IMNMX|VIADDMNMX|LOP3|SHF|LEA|SEL|PRMT|I2FP|F2FP)\b",
    "special-function unit": r"(?:MUFU|FRND|F2F|F2I|I2F|POPC)\b",
    "shuffles": r"(?:SHFL|LDS|STS|LDSM|STSM)\b",
}
_AMD = {
    "special": r"v_(?:exp|log|rcp|rsq|sqrt|sin|cos)_",
    "float64": r"v_\w+_f64",
}
_AMD_BITS = {
    "dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32,
    "ushort": 16, "sshort": 16, "short": 16, "ubyte": 8, "sbyte": 8, "byte": 8,
}  # fmt: skip


def by_class(opcodes: Mapping[str, int], architecture: str) -> dict[str, int]:
    """How many there are of each class, and of "all"."""
    classes = _NVIDIA if is_nvidia(architecture) else _AMD
    return {
        "all": sum(opcodes.values()),
        **{
            name: sum(count for opcode, count in opcodes.items() if re.match(pattern, opcode))
            for name, pattern in classes.items()
        },
    }


def accesses(
    opcodes: Mapping[str, int], architecture: str
) -> tuple[dict[int, int], dict[int, int]]:
    """Loads from and stores to global memory, by bits a lane, widest first."""
    found: dict[str, Counter[int]] = {"load": Counter(), "store": Counter()}
    for opcode, count in opcodes.items():
        if is_nvidia(architecture):
            if match := re.match(r"(LD|ST)G?\.E\b(.*)", opcode):
                kind = "load" if match[1] == "LD" else "store"
                bits = re.search(r"\.[US]?(8|16|64|128|256)\b", match[2])
                found[kind][int(bits[1]) if bits else 32] += count
        elif match := re.match(
            r"(?:global|buffer|flat)_(load|store)_([us]?byte|[us]?short|dword(?:x\d)?)", opcode
        ):
            found[match[1]][_AMD_BITS[match[2]]] += count
    loads, stores = (dict(sorted(x.items(), reverse=True)) for x in found.values())
    return loads, stores


def moves_data(opcode: str) -> bool:
    """Whether this is an access to global memory, on any architecture."""
    return any(accesses({opcode: 1}, name)[i] for name in ("sm_90", "gfx942") for i in (0, 1))


def spills(opcodes: Mapping[str, int]) -> int:
    """Accesses to a lane's own memory in NVIDIA's code."""
    return sum(count for opcode, count in opcodes.items() if opcode.startswith(("LDL", "STL")))


def is_nvidia(architecture: str) -> bool:
    return architecture.startswith("sm_")

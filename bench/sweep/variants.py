"""The losses and rows that a sweep is of, and the configurations that it tries for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from bench.ahead_of_time import Case
from triton_topk.kernels import config as table
from triton_topk.kernels import launch
from triton_topk.kernels.config import Config

_MOST_SCORES = 128  # of a lane; more would take minutes to compile
F32, BF16 = torch.float32, torch.bfloat16

CASES = [
    *(Case(n, 5, dtype) for n in (1000, 4096, 32_768, 16_384, 128) for dtype in (F32, BF16)),
    *(Case(131_072, 5, dtype) for dtype in (F32, BF16)),
    *(Case(n, 5, F32) for n in (300, 512)),
    *(Case(n, 5, dtype) for n in (2000, 8192) for dtype in (F32, BF16)),
    *(Case(1000, k, F32) for k in (10, 16, 1, 2)),
    *(Case(n, 5, F32, loss="smooth_svm_lq") for n in (1000, 32_768, 131_072)),
    *(Case(n, 5, BF16, loss="smooth_svm_lq") for n in (1000, 32_768)),
    *(Case(n, None, dtype, loss="lq_loss") for n in (1000, 32_768) for dtype in (F32, BF16)),
    Case(1000, 5, F32, loss="hard_svm"),
    Case(1000, 10, BF16),
]


def variants(case: Case) -> list[Config]:
    """The table's first; then what differs from it in one thing, or in a few that go together."""
    base = launch.choose(case.parameters, case.n, case.dtype)
    tried: list[dict[str, int | bool]] = [
        {"registers": r} for r in (base.registers or 128, 80, 96, 128, 168, 255)
    ]
    tried += [{"stream": not base.stream, "registers": r} for r in (80, 96, 128)]
    if base.parts > 1:
        tried += [
            {"warps": warps, "parts": parts * base.warps // warps, "registers": registers}
            for warps in (2, 4, 8, 16)
            for parts in (base.parts, 2 * base.parts)
            for registers in (80, 128)
        ]
    else:
        wide, narrow = 2 * base.columns, base.columns // 2
        one = base.warps == 1  # several rows then share a warp, or one is alone in it
        for r in (72, 80, 96, 128):
            tried.append(
                {"columns": wide, "warps": base.warps * (1 if base.rows > 1 else 2), "registers": r}
            )
        for r in (128, 168, 255) if base.stream else (255,):
            tried.append({"columns": narrow, "warps": max(1, base.warps // 2), "registers": r})
        tried += [
            {"columns": wide, "warps": 2 * base.warps, "registers": 96},
            {
                "columns": 2 * wide,
                "warps": base.warps * (1 if base.rows > 2 else 4),
                "registers": 80,
            },
            {"warps": 2 * base.warps, "registers": 128},
            {"vectors": 3 - base.vectors, "registers": 128},
            *(
                {
                    "stream": True,
                    "columns": narrow,
                    "warps": max(1, base.warps // 2),
                    "registers": r,
                }
                for r in (80, 128)
            ),
        ]
        if not one and case.n >= 16_384:
            tried += [
                {"parts": parts, "warps": base.warps // parts, "registers": 128} for parts in (2, 4)
            ]
    return list(dict.fromkeys(filter(None, (_laid_out(case, base, changes) for changes in tried))))


def _laid_out(case: Case, base: Config, changes: Mapping[str, Any]) -> Config | None:
    """None where there is no such kernel, or none that compiles in seconds."""
    new = table.laid_out(replace(base, **changes), case.n, case.dtype)
    scores = new.blocks * new.vectors * 16 // case.dtype.itemsize
    fits = 32 * new.warps * (new.registers or 0) <= 65_536 and new.warps <= 16
    short = new.stream or scores <= _MOST_SCORES
    known = launch.in_range(case.parameters, case.n, case.dtype, new)
    return new if fits and short and known else None


def text(c: Config) -> str:
    """rows x columns x vectors x blocks, kept in registers or streamed; warps, registers, parts."""
    kind = "s" if c.stream else "r"
    return f"{c.rows}x{c.columns}x{c.vectors}x{c.blocks}{kind} w{c.warps} r{c.registers} p{c.parts}"

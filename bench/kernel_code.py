"""What the compiler makes of the kernel, for GPUs that need not be there.

    python bench/kernel_code.py

Writes reports/kernel-code.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ARCHITECTURES = ("sm_90", "gfx942")
CASES = [
    *(
        ("smooth_svm", n, k, dtype)
        for n, k, dtype in (
            (1000, 1, torch.float32), (1000, 5, torch.float32), (1000, 5, torch.bfloat16),
            (1000, 10, torch.float32), (1000, 16, torch.float32), (16_384, 5, torch.float32),
            (16_384, 5, torch.bfloat16), (131_072, 5, torch.float32), (1000, 5, torch.float64),
        )
    ),
    *(
        (loss, n, k, dtype)
        for loss, k in (("lq_loss", 1), ("smooth_svm_lq", 5), ("hard_svm", 5))
        for n, dtype in ((1000, torch.float32), (1000, torch.bfloat16), (16_384, torch.float32))
    ),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("reports"))
    arguments = parser.parse_args()
    os.environ.pop("TRITON_INTERPRET", None)
    import triton
    from ahead_of_time import Case, compile_case

    lines = [
        "# The compiled kernel",
        "",
        f"Loss and gradient in one pass, Triton {triton.__version__}. Instructions: all there are in "
        "the code, and per score of a lane, the unused part of the last block included; a streaming "
        "kernel has its blocks in loops, which a count of the code does not see.",
        "",
        "| target | loss | n | k | dtype | rows x lanes x blocks, warps | registers | spills | stack | "
        "instructions | per score |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    jobs = [(target, case) for target in ARCHITECTURES for case in CASES]
    for target, (loss, n, k, dtype) in track(jobs):
        code = compile_case(Case(n, k, dtype, loss=loss), target)
        config = code.config
        per_score = "" if config.stream else f"{code.instructions_per_score:.1f}"
        layout = f"{config.rows} x {config.lanes} x {config.blocks}, {config.warps}"
        shown = "" if loss == "lq_loss" else k
        lines.append(
            f"| {target} | {loss} | {n} | {shown} | {str(dtype).removeprefix('torch.')} | {layout}"
            f"{', stream' if config.stream else ''} | {code.registers} | {code.spills} | "
            f"{code.stack_bytes} | {code.instructions} | {per_score} |"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "kernel-code.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

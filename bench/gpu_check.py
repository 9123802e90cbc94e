"""On a machine with a GPU: check every kernel, then time it.

    python bench/gpu_check.py

Runs the tests marked `gpu`, then times forward + backward of the mean against F.cross_entropy and against
the device's copy bandwidth, and writes reports/gpu-DEVICE.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor
from torch.nn import functional as F
from triton.testing import do_bench

import triton_topk

# Scores in all: well past any L2 cache, which the timer also clears before each run.
SCORES = 2**28
CASES = [
    ("smooth_svm", n, k, dtype)
    for dtype in (torch.float32, torch.bfloat16)
    for n, k in (
        (100, 5), (1000, 1), (1000, 5), (1000, 10), (1000, 16), (4096, 5), (16_384, 5), (32_768, 5),
        (131_072, 5),
    )
] + [
    (loss, n, 5, dtype)
    for loss in ("lq_loss", "smooth_svm_lq", "hard_svm")
    for dtype in (torch.float32, torch.bfloat16)
    for n in (1000, 16_384, 131_072)
]  # fmt: skip


def milliseconds(loss: object, scores: Tensor, labels: Tensor) -> float:
    def step() -> None:
        scores.grad = None
        loss(scores, labels).backward()  # type: ignore[operator]

    return float(do_bench(step, warmup=100, rep=400, return_mode="median"))


def row(name: str, n: int, k: int, dtype: torch.dtype, copy_speed: float) -> str:
    loss = getattr(triton_topk, name)
    options = {} if name == "lq_loss" else {"k": k}
    scores = torch.randn(SCORES // n, n, device="cuda", dtype=dtype, requires_grad=True)
    labels = torch.randint(n, (scores.shape[0],), device="cuda")
    ours = milliseconds(lambda s, y: loss(s, y, **options), scores, labels)
    theirs = milliseconds(F.cross_entropy, scores, labels)
    speed = 2 * scores.nbytes / ours / 1e6
    return (
        f"| {name} | {n} | {options.get('k', '')} | {str(dtype).removeprefix('torch.')} | {ours:.3f} | {speed:.0f} | "
        f"{speed / copy_speed:.0%} | {theirs / ours:.2f} |"
    )


def copy_bandwidth() -> float:
    """Of this device, in GB/s."""
    source = torch.empty(SCORES, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / float(do_bench(lambda: target.copy_(source))) / 1e6


def main() -> None:
    tests = pytest.main(["-m", "gpu", "-q", str(Path(__file__).parents[1] / "tests")])
    if tests != pytest.ExitCode.OK:
        sys.exit(int(tests))
    device = torch.cuda.get_device_name()
    copy_speed = copy_bandwidth()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        f"# {device}",
        "",
        f"torch {torch.__version__}, Triton {triton.__version__}, commit {commit or 'unknown'}. Forward + backward of "
        f"the mean, {SCORES} scores; bytes are one read and one write of the scores. "
        f"Copy: {copy_speed:.0f} GB/s. Last column: time of F.cross_entropy over ours.",
        "",
        "| loss | n | k | dtype | ms | GB/s | of copy | cross-entropy |",
        "|---|---|---|---|---|---|---|---|",
        *(row(*case, copy_speed) for case in CASES),
    ]
    report = Path("reports") / f"gpu-{device.replace(' ', '-')}.md"
    report.parent.mkdir(exist_ok=True)
    report.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""`python -m bench.device` says what a GPU is and how fast it copies, before anything is measured on it."""

from __future__ import annotations

import json

import torch
import triton
import triton.language as tl

from bench.machine import describe
from bench.timing import DeviceTimer

_SCORES, _COPIES = 2**28, 8


@triton.jit
def _powers(out, first, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.exp2((first + i).to(tl.float32)))


def wrong_powers() -> list[int]:
    """exp2 is not exact for these whole numbers, among those with a normal power."""
    first, count = -126, 254
    out = torch.empty(256, device="cuda")
    _powers[(1,)](out, first, BLOCK=256)
    exact = torch.arange(first, first + count, dtype=torch.float64).exp2()
    return (first + (out.cpu()[:count].double() != exact).nonzero().flatten()).tolist()


def copy_bandwidth() -> float:
    """A copy reads and writes so many bytes a second."""
    x = torch.randn(_SCORES, device="cuda")
    y = torch.empty_like(x)
    timer = DeviceTimer(x.device)
    seconds = [timer.stopwatch(lambda: y.copy_(x)) for _ in range(_COPIES)]
    return 2 * x.nbytes / min(seconds)


def main() -> None:
    print(json.dumps(describe(torch.device("cuda"), ""), indent=1))
    print(torch.cuda.get_device_properties(0))
    print("exp2 is inexact for", wrong_powers() or "no whole number")
    print(f"copies move {copy_bandwidth() / 1e12:.3f} TB/s")


if __name__ == "__main__":
    main()

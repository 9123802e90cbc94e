"""`python -m bench.device` says what a GPU is and how fast it copies, before anything is measured on it."""

from __future__ import annotations

import json

import torch
import triton
import triton.language as tl

from bench.machine import describe
from bench.timing import DeviceStopwatch

_SCORES = 2**28
_COPIES = 8


@triton.jit
def _powers(out, first, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.exp2((first + i).to(tl.float32)))


def wrong_powers() -> list[int]:
    """Whole numbers of which exp2 is not exact, among those with a normal power."""
    first, count = -126, 254
    out = torch.empty(256, device="cuda")
    _powers[(1,)](out, first, BLOCK=256)
    exact = torch.arange(first, first + count, dtype=torch.float64).exp2()
    return (first + (out.cpu()[:count].double() != exact).nonzero().flatten()).tolist()


def copy_bandwidth() -> float:
    """Bytes a second, read and written."""
    x = torch.randn(_SCORES, device="cuda")
    y = torch.empty_like(x)

    def copies() -> None:
        for _ in range(_COPIES):
            y.copy_(x)

    copies()
    return 2 * x.nbytes * _COPIES / DeviceStopwatch()(copies)


def main() -> None:
    properties = torch.cuda.get_device_properties(0)
    print(json.dumps(describe(torch.device("cuda"), ""), indent=1))
    print(properties)
    print("exp2 is inexact for", wrong_powers() or "no whole number")
    print(f"copies move {copy_bandwidth() / 1e12:.3f} TB/s")


if __name__ == "__main__":
    main()

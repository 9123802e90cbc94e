"""`python -m bench.device` says what a GPU is and how fast it copies, before anything is measured on it."""

import json

import torch

from bench.machine import describe
from bench.timing import DeviceTimer

_SCORES, _COPIES = 2**28, 8


def main() -> None:
    x = torch.randn(_SCORES, device="cuda")
    y, timer = torch.empty_like(x), DeviceTimer(x.device)
    seconds = min(timer.stopwatch(lambda: y.copy_(x)) for _ in range(_COPIES))
    print(json.dumps(describe(torch.device("cuda"), ""), indent=1))
    print(torch.cuda.get_device_properties(0))
    print(f"copies move {2 * x.nbytes / seconds / 1e12:.3f} TB/s")


if __name__ == "__main__":
    main()

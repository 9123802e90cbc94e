"""Runs the losses of one commit when told to, a line of JSON each way; worker.py starts it.

It needs nothing of bench/, because the commit that it measures may have another one, or none.

    nothing yet                                      -> {"package": FOLDER, "device": "cpu", "machine": TEXT}
    {"function": "lq_loss", "parameters": {}, ...,
     "n": 10, "batch": 2, "dtype": "float32",
     "results": PATH.npz}                            -> {"lacks": null or what this commit has not}
    {"iterations": 10}                               -> {"seconds": of an iteration of that case}
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

SEED = 0
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Step = Callable[[], torch.Tensor]


def seconds(step: Step, iterations: int) -> float:
    step()  # what fell asleep during the other commit's turn wakes up untimed
    if DEVICE.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(iterations):
            step()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3 / iterations
    start = time.perf_counter()
    for _ in range(iterations):
        step()
    return (time.perf_counter() - start) / iterations


def lacking(package: ModuleType, case: dict[str, Any]) -> str | None:
    loss = getattr(package, case["function"], None)
    if loss is None:
        return f"no {case['function']}"
    try:
        inspect.signature(loss).bind("scores", "labels", **case["parameters"])
    except TypeError as unknown:
        return str(unknown)
    return None


def prepare(package: ModuleType, case: dict[str, Any]) -> Step:
    """Forward + backward of the case; the results of doing it once are saved."""
    generator = torch.Generator().manual_seed(SEED)
    scores = torch.randn(case["batch"], case["n"], generator=generator)
    scores = scores.to(DEVICE, getattr(torch, case["dtype"])).requires_grad_()
    labels = torch.randint(case["n"], (case["batch"],), generator=generator).to(DEVICE)
    loss, parameters = getattr(package, case["function"]), case["parameters"]

    def step() -> torch.Tensor:
        scores.grad = None
        result = loss(scores, labels, **parameters)
        result.backward()
        return result

    result = step().item()
    np.savez(case["results"], loss=result, gradient=scores.grad.float().cpu().numpy())
    return step


def machine() -> str:
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    # Whatever else prints must not be taken for a reply.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import triton_topk

    def reply(**content: object) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    # Also for a folder without an __init__.py, which has no __file__.
    reply(package=next(iter(triton_topk.__path__)), device=DEVICE.type, machine=machine())

    def step() -> torch.Tensor:
        raise LookupError("no case yet")

    for line in sys.stdin:
        request = json.loads(line)
        if "iterations" in request:
            reply(seconds=seconds(step, request["iterations"]))
            continue
        what = lacking(triton_topk, request)
        if what is None:
            step = prepare(triton_topk, request)
        reply(lacks=what)


if __name__ == "__main__":
    main()

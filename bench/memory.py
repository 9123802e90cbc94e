"""A step needs memory beside its scores and their gradient."""

from __future__ import annotations

import json
import tempfile
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.timing import Step


def extra_memory(step: Step, device: torch.device) -> int:
    """So many bytes are allocated at the peak."""
    peak = _peak_on_gpu(step) if device.type == "cuda" else _peak_on_cpu(step)
    return max(0, peak - step.scores.nbytes * step.scores.requires_grad)


def _peak_on_gpu(step: Step) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_on_cpu(step: Step) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    changes = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])
    return max(accumulate((e["args"]["Bytes"] for e in changes), initial=0))

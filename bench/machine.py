"""The results of a run say what it ran on, and how busy that was with other things."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch
from pytest_benchmark.utils import get_commit_info

import triton_topk

_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)  # among its columns; waiting for a disk, too
_COUNTED = slice(8)  # what follows is counted in these already


def describe(device: torch.device, cpu: str) -> dict[str, Any]:
    """The keys are name, kind, driver and l2_bytes (of a GPU), threads and versions."""
    on_gpu = device.type == "cuda"
    versions = {"python": platform.python_version(), "triton_topk": triton_topk.__version__}
    versions["torch"] = torch.__version__
    for package in ("triton", "liger-kernel", "difftopk"):
        found = importlib.metadata.distributions(name=package)
        versions[package] = next((each.version for each in found), "not installed")
    return {
        "name": torch.cuda.get_device_name(device) if on_gpu else cpu,
        "kind": device.type,
        "driver": _runtime() if on_gpu else None,
        "l2_bytes": l2_bytes(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def _runtime() -> str:
    return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


def commit() -> dict[str, str]:
    """The keys are commit and date.  TRITON_TOPK_COMMIT says which commit it is where a copy lacks its history."""
    found = get_commit_info()
    name = os.environ.get("TRITON_TOPK_COMMIT") or str(found["id"])
    changed = " with changes" if found["dirty"] else ""
    return {"commit": name[:10] + changed, "date": datetime.date.today().isoformat()}


def l2_bytes(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


class Load:
    """A load is the average before a run, and what all other processes have used since."""

    def __init__(self) -> None:
        self.before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._start = _seconds()

    def others(self) -> float | None:
        """The result is their share of the time of all CPUs; None where the system does not say."""
        if self._start is None:
            return None
        pairs = zip(_seconds(), self._start, strict=True)
        total, busy, ours = (now - start for now, start in pairs)
        return max(0.0, busy - ours) / total if total else None  # some sandboxes count nothing


def _seconds() -> tuple[float, float, float] | None:
    """The seconds of all CPUs are: in all, busy, and used by this process and those of its children that have ended."""
    if not _STAT.exists():
        return None
    hertz = os.sysconf("SC_CLK_TCK")
    ticks = [int(x) / hertz for x in _STAT.read_text().split("\n", 1)[0].split()[1:]][_COUNTED]
    return sum(ticks), sum(ticks) - sum(ticks[_IDLE]), sum(os.times()[:4])

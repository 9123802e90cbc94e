"""What a run ran on, as its results say it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from typing import Any

import torch
from pytest_benchmark.utils import get_commit_info

import triton_topk

_PACKAGES = ("torch", "triton", "liger-kernel", "difftopk")


def describe(device: torch.device, cpu: str) -> dict[str, Any]:
    """name, kind, driver, l2_bytes, threads, versions; l2_bytes and driver are of a GPU."""
    on_gpu = device.type == "cuda"
    return {
        "name": torch.cuda.get_device_name(device) if on_gpu else cpu,
        "kind": device.type,
        "driver": _driver() if on_gpu else None,
        "l2_bytes": l2_bytes(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "triton_topk": triton_topk.__version__,
            **_versions(),
        },
    }


def commit() -> str:
    """The commit that is measured; TRITON_TOPK_COMMIT says it where a copy lacks its history."""
    return os.environ.get("TRITON_TOPK_COMMIT") or str(get_commit_info()["id"])


def l2_bytes(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _driver() -> str:
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    runtime = f"CUDA {torch.version.cuda}"
    if shutil.which("nvidia-smi") is None:
        return runtime
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    return f"{runtime}, driver {driver}"

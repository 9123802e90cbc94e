"""The report describes the machine as a bug report has to."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

import torch
from torch.utils import collect_env

from triton_topk import __version__


def lines(device: torch.device) -> Iterator[str]:
    yield (
        f"triton_topk {__version__}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, triton {_version('triton')}, numba {_version('numba')}"
    )
    yield platform.platform()
    yield f"device: {_describe(device)}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _describe(device: torch.device) -> str:
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    properties = torch.cuda.get_device_properties(device)
    toolkit = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    driver = collect_env.get_nvidia_driver_version(collect_env.run) or "unknown"
    return (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, {toolkit}, "
        f"driver {driver}"
    )

"""Tests of kernels on the CPU: in Triton's interpreter, which Triton looks for once, when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


def pass_in_the_interpreter(config: pytest.Config, *arguments: str) -> bool:
    """Whether pytest with these arguments passes there, in processes of its own, and all of it with --all."""
    everything = ["--all"] if config.getoption("all") else []
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST_")}
    # pytest reads the number of tests that ran off the output, so let it through
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *everything, *arguments],
        env=environment | {"TRITON_INTERPRET": "1"},
        cwd=_ROOT,
        check=False,
    )
    return finished.returncode == 0

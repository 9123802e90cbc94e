"""Tests of kernels on the CPU: in Triton's interpreter, which Triton looks for once, when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]

default_and_rest = pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="default"),
        pytest.param(("--rest",), id="rest", marks=pytest.mark.exhaustive),
    ],
)


def pass_in_the_interpreter(config: pytest.Config, *arguments: str) -> bool:
    """Return whether pytest with these arguments passes there, in processes of its own, or in one if this is in one."""
    # of what is slow there, much is in one file
    options = ["-n0"] if config.getoption("numprocesses") == 0 else ["--dist=worksteal"]
    # pytest reads the number of tests that ran off the output, so let it through
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, *arguments],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=_ROOT,
        check=False,
    )
    return finished.returncode == 0

"""Mypy finds the right types, and the wrong calls, in a user's script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.exhaustive
def test_a_users_script_under_mypy_strict() -> None:
    # from the root of the repository, where mypy keeps what it knows of PyTorch
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", HERE / "user_script.py"],
        cwd=HERE.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout

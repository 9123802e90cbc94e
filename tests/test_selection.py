"""Every test is of the default ones or of the rest, and of no more than one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CROSS = "tests/citizen/test_jit_trace.py"  # has both


def collected(*options: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "--collect-only", CROSS, *options]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line for line in found.splitlines() if "::" in line}


def test_the_default_tests_and_the_rest_are_all() -> None:
    default, rest = collected(), collected("--rest")
    assert default
    assert rest
    assert not default & rest
    assert default | rest == collected("--all")
    # as CI asks for it
    assert rest == collected("--all", "--rest")

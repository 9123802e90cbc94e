"""The kernels on the CPU, in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed")


def test_kernels_in_the_interpreter() -> None:
    tests = Path(__file__).parent
    # pytest reads the number of tests that ran off the output, so let it through
    code = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tests / "interpreted"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=tests.parent,
        check=False,
    ).returncode
    assert code == 0

"""The kernels on the CPU, in Triton's interpreter."""

import pytest
from interpreting import pass_in_the_interpreter

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed")


def test_kernels_in_the_interpreter() -> None:
    # pytest-benchmark warns that it measures nothing beside other processes
    assert pass_in_the_interpreter("tests/interpreted", "-n", "auto", "-p", "no:benchmark")

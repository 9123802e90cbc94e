"""The kernels on the CPU, in Triton's interpreter."""

import pytest
from interpreting import pass_in_the_interpreter

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed")


def test_kernels_in_the_interpreter(pytestconfig: pytest.Config) -> None:
    assert pass_in_the_interpreter(pytestconfig, "tests/interpreted")

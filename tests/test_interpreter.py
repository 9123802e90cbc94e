"""The kernels on the CPU, in Triton's interpreter."""

import pytest
from interpreting import default_and_rest, pass_in_the_interpreter

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed")


@default_and_rest
def test_kernels_in_the_interpreter(pytestconfig: pytest.Config, options: tuple[str, ...]) -> None:
    assert pass_in_the_interpreter(pytestconfig, "tests/interpreted", *options)

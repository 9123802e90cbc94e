"""The same with the kernels."""

import pytest
from hypothesis import settings
from interpreting import pass_in_the_interpreter

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed")


def test_any_call_of_a_kernel(pytestconfig: pytest.Config) -> None:
    profile = settings.get_current_profile_name()
    assert pass_in_the_interpreter(
        pytestconfig, "tests/fuzz", "-n0", f"--hypothesis-profile={profile}"
    )

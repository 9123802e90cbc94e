"""The same with the kernels."""

import pytest
from hypothesis import settings
from interpreting import default_and_rest, pass_in_the_interpreter

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed")


@default_and_rest
def test_any_call_of_a_kernel(pytestconfig: pytest.Config, options: tuple[str, ...]) -> None:
    profile = settings.get_current_profile_name()
    assert pass_in_the_interpreter(
        pytestconfig, "tests/fuzz", "-n0", *options, f"--hypothesis-profile={profile}"
    )

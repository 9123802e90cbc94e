"""The contract is tested on the CPU without Triton."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def every_backend(chosen_backend: None) -> None:
    """What is on the CPU is for each of its backends in turn."""

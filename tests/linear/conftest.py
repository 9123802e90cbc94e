"""Losses of linear layers are tested on the CPU without Triton, on each backend in turn."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def every_backend(chosen_backend: None) -> None:
    """Each test runs on each backend of the CPU in turn."""

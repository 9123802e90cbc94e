"""The tests of compiled kernels share the emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def emulator() -> Iterator[None]:
    from tests.ptx.kernels import emulated

    with emulated():
        yield

"""Tests of shards share processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from processes import Ranks


@pytest.fixture(scope="module")
def ranks_of() -> Iterator[Callable[[int], Ranks]]:
    """The processes of a group of so many, which are started when they are first asked for."""
    with ExitStack() as stack:
        yield cache(lambda world: stack.enter_context(Ranks(world)))

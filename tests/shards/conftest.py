"""Tests of shards share processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from losses import DTYPES, Loss, random_labels, random_scores
from processes import Ranks


@pytest.fixture(scope="module")
def ranks_of() -> Iterator[Callable[[int], Ranks]]:
    """The processes of a group of so many, which are started when they are first asked for."""
    with ExitStack() as stack:
        yield cache(lambda world: stack.enter_context(Ranks(world)))


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """The native backend is compiled in one process, so that no rank waits for another that compiles."""
    for dtype in DTYPES:
        Loss("smooth_svm", k=2).with_gradient(
            random_scores(2, 5, dtype=dtype), random_labels(2, n=5)
        )

"""Structures of kernels as cases of tests."""

from __future__ import annotations

import re

import pytest

from bench.ahead_of_time import Case


def structures(*cases: Case) -> list[object]:
    """Make the cases parameters of a test, which always runs those that take seconds."""
    short = re.compile("k1-|hard_svm|lq_loss|k2-")

    def takes_seconds(case: Case) -> bool:
        return case.n < 10_000 and short.search(str(case)) is not None

    return [
        pytest.param(x, id=str(x), marks=() if takes_seconds(x) else pytest.mark.exhaustive)
        for x in cases
    ]

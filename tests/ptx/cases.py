"""Structures of kernels as cases of tests."""

from __future__ import annotations

import re

import pytest

from bench.ahead_of_time import Case


def structures(*cases: Case) -> list[object]:
    """The cases become parameters of a test; it always runs the ones that are compiled in seconds."""
    quick = re.compile("k1-|hard_svm|lq_loss|k2-")
    return [
        pytest.param(x, id=str(x), marks=() if quick.search(str(x)) else pytest.mark.exhaustive)
        for x in cases
    ]

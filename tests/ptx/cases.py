"""Structures of kernels as cases of tests."""

from __future__ import annotations

import re

import pytest

from bench.ahead_of_time import Case


def structures(*cases: Case) -> list[object]:
    """Those that are compiled in a second or two are always run."""
    quick = re.compile("k1-|hard_svm|lq_loss|k2-")
    return [
        pytest.param(x, id=str(x), marks=() if quick.search(str(x)) else pytest.mark.exhaustive)
        for x in cases
    ]

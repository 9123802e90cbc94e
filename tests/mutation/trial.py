"""The tests in Triton's interpreter on a copy of the package, broken or not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.mutation.mutants import Mutant

_ALL = ("tests/interpreted", "tests/fuzz")
_NEEDED = ("triton_topk", "tests", "pyproject.toml")
# All tests take a few minutes: a mutant may have made a loop endless.
_LIMIT = 3600


class Outcome(NamedTuple):
    test: str | None  # the first that fails on the mutant; None: it survives
    by_default: bool  # whether that test is run without --all


def check_clean() -> None:
    """RuntimeError if a test fails without a mutant, of which nothing could be learned."""
    with TemporaryDirectory() as name:
        root = _copy_to(Path(name))
        failed = _first_failure(root, "--all", *_ALL)
    if failed is not None:
        raise RuntimeError(f"without any mutant {failed} fails")


def outcome(mutant: Mutant) -> Outcome:
    with TemporaryDirectory() as name:
        root = _copy_to(Path(name))
        mutant.apply(root)
        # one pytest would take all in the order of the directory
        first = _first_failure(root, f"tests/interpreted/{mutant.first}")
        default = first or _first_failure(root, *_ALL)
        return Outcome(default or _first_failure(root, "--all", *_ALL), default is not None)


def _copy_to(root: Path) -> Path:
    for name in _NEEDED:
        if Path(name).is_dir():
            shutil.copytree(name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(name, root / name)
    return root


def _first_failure(root: Path, *tests: str) -> str | None:
    try:
        # started there, the package is the copy, whatever is installed
        finished = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-n0",
                "-x",
                "-q",
                "-rfE",
                "-p",
                "no:cacheprovider",
                *tests,
            ],
            env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)},
            cwd=root,
            check=False,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return "a test without end"
    if finished.returncode == 0:
        return None
    if finished.returncode < 0:
        return "a crash"
    found = re.search(
        r"^(?:FAILED|ERROR) tests/(?:interpreted|fuzz)/([^\s\[]+)", finished.stdout, re.M
    )
    if found is None:
        raise RuntimeError(finished.stdout + finished.stderr)
    return found[1]

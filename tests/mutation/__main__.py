"""Break the package by one small edit at a time, and see whether a test notices.

python -m tests.mutation --number 8 --seed 0

The edits are a random sample of all that edits.py knows in what computes a loss.  Each is made in a copy of the package
and tried by the tests of its part until the first fails.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.mutation.edits import Edit, edits

_PAGE = Path("reports/mutants.md")
_NEEDED = ("triton_topk", "tests", "bench", "docs", "pyproject.toml")
_LIMIT = 1200  # seconds: an edit may have made a loop endless
_NOT_COMPUTED = ("compile.py", "config.py", "launch.py")  # edits there change what a loss costs
_INTERPRETED = "tests/interpreted"


class Part(NamedTuple):
    """A part of the package has tests, the quicker ones first."""

    files: tuple[str, ...]
    tests: tuple[list[str], ...]

    @property
    def edited(self) -> list[Path]:
        found = [file for files in self.files for file in sorted(Path("triton_topk").glob(files))]
        return [file for file in found if file.name not in _NOT_COMPUTED]


_LOSSES = [f"tests/test_{name}.py" for name in ("accuracy", "lq", "hard_svm", "mixture")]
_SHARDS = ["tests/test_summary.py", "tests/shards/test_shard_numbers.py"]
_PARTS = (
    Part(
        ("kernels/*.py",),
        (
            [f"{_INTERPRETED}/test_{x}.py" for x in ("losses", "launch", "margins_and_hits")],
            [f"{_INTERPRETED}/test_{x}.py" for x in ("kernels", "parts", "derivatives", "shards")],
        ),
    ),
    Part(
        ("eager/*.py",),
        (
            _LOSSES,
            ["tests/test_properties.py", "tests/citizen/test_no_sync.py", "tests/contract"],
            _SHARDS,
        ),
    ),
    Part(("native/*.py",), (_LOSSES, ["tests/native", *_SHARDS])),
    Part(
        ("summary.py", "polynomial.py", "shard.py", "exchange.py", "distributed.py"),
        (_SHARDS, ["tests/shards"]),
    ),
    Part(("layer.py", "linear.py"), (["tests/linear", "tests/shards/test_shard_linear.py"],)),
)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=8, help="of edits of each part (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--page", action="store_true", help=f"write {_PAGE}, too")
    arguments = parser.parse_args(given)
    sample = sampled(arguments.number, arguments.seed)
    outcomes = []
    with ThreadPoolExecutor(arguments.processes) as pool:
        for failed in pool.map(lambda part: first_failure(part.tests, None), _PARTS):
            if failed is not None:
                parser.error(f"without any edit {failed} fails")
        for edit, failed in zip(sample, pool.map(_tried, sample), strict=True):
            outcomes.append((edit, failed))
            print(_row(edit, failed), flush=True)  # noqa: T201
            if arguments.page:  # as they come: a run takes an hour
                _PAGE.write_text(page(outcomes, arguments.seed))


def sampled(number: int, seed: int) -> list[Edit]:
    """Return as many edits of each part."""
    generator = random.Random(seed)
    of_parts = ([edit for file in part.edited for edit in edits(file)] for part in _PARTS)
    return [edit for of_part in of_parts for edit in generator.sample(of_part, number)]


def _tried(edit: Edit) -> str | None:
    (part,) = [part for part in _PARTS if edit.file in part.edited]
    return first_failure(part.tests, edit)


def first_failure(tests: Sequence[Sequence[str]], edit: Edit | None) -> str | None:
    """Return the first test that fails on a copy of the package with this edit."""
    with TemporaryDirectory() as name:
        root = Path(name)
        for needed in _NEEDED:
            copy = shutil.copytree if Path(needed).is_dir() else shutil.copy
            copy(needed, root / needed)
        if edit is not None:
            edit.apply(root)
        return next(filter(None, (_run(root, some) for some in tests)), None)


def _run(root: Path, tests: Sequence[str]) -> str | None:
    interpret = {"TRITON_INTERPRET": "1"} if tests[0].startswith(_INTERPRETED) else {}
    options = ["-n0", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            env=os.environ | interpret | {"PYTHONPATH": str(root)},
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
    found = re.search(r"^(?:FAILED|ERROR) tests/([^\s\[]+)", finished.stdout, re.MULTILINE)
    if finished.returncode < 0 or found is None:
        return "a crash"
    return found[1]


def page(outcomes: Sequence[tuple[Edit, str | None]], seed: int) -> str:
    caught = sum(failed is not None for _, failed in outcomes)
    return "\n".join(
        [
            "# Mutants",
            "",
            "`python -m tests.mutation --page` breaks the package by one small edit at a time.",
            "",
            f"Of {len(outcomes)} random edits (seed {seed}) tests notice {caught}, {caught / len(outcomes):.0%}.",
            "",
            "| place | code | edited | noticed by |",
            "|---|---|---|---|",
            *(_row(edit, failed) for edit, failed in sorted(outcomes, key=_survivors_first)),
            "",
        ]
    )


def _survivors_first(outcome: tuple[Edit, str | None]) -> tuple[bool, str, int]:
    edit, failed = outcome
    return failed is not None, str(edit.file), edit.line


def _row(edit: Edit, failed: str | None) -> str:
    code = (f"`{text}`".replace("|", "\\|") for text in (edit.before, edit.after))
    place = f"{edit.file.relative_to('triton_topk')}:{edit.line}"
    return f"| {' | '.join([place, *code, failed or '**survives**'])} |"


if __name__ == "__main__":
    main()

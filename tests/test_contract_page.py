"""docs/contract.md: every promise names tests, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/contract.md").read_text(encoding="utf-8")


def promises() -> list[tuple[str, list[str]]]:
    """Each item of the page's lists is a promise; the items below it are files, each with its tests."""
    found = []
    for item in re.findall(r"^- (.*\n(?:  .*\n)*)", PAGE, re.MULTILINE):
        promise, *held_by = (" ".join(part.split()) for part in re.split(r"\n  - ", item))
        found.append((promise, held_by))
    return found


@cache
def functions_of(path: str) -> frozenset[str]:
    """The names of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize(("promise", "held_by"), promises())
def test_a_promise_is_held_by_tests(promise: str, held_by: list[str]) -> None:
    assert promise
    assert held_by
    for file in held_by:
        tests = re.fullmatch(r"`(tests/[\w/]+\.py)`: (`\w+`(?:, `\w+`)*)", file)
        assert tests is not None, f"not a file and its tests: {file!r}"
        for function in tests[2].strip("`").split("`, `"):
            assert function in functions_of(tests[1]), f"{tests[1]} has no {function}"


def test_no_promise_is_lost_to_the_markup() -> None:
    files = [file for _, held_by in promises() for file in held_by]
    assert files
    assert re.findall(r"`test_\w+`", " ".join(files)) == re.findall(r"`test_\w+`", PAGE)

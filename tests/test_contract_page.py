"""docs/contract.md: every promise names tests, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def promises() -> list[tuple[str, str]]:
    """The rows of the page's tables: what is promised, and what holds it."""
    page = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()[2:]]
    return [tuple(cell.strip() for cell in row[1:-1].split("|")) for row in rows]


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
def test_a_promise_is_held_by_tests(promise: str, held_by: str) -> None:
    assert promise
    for test in held_by.split(", "):
        name = re.fullmatch(r"`(tests/[\w/]+\.py)::(\w+)`", test)
        assert name is not None, f"not a test: {test!r}"
        path, function = name.groups()
        assert function in functions_of(path), f"{path} has no {function}"


def test_no_promise_is_lost_to_the_markup() -> None:
    page = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## ", page, re.MULTILINE)
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert headings
    # the head of a table and the line below it
    assert len(promises()) == len(lines) - 2 * len(headings)

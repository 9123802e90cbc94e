"""The list of mutants does not rot: each still is one line of a kernel, and another one."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.mutants import KERNELS, MUTANTS, Mutant
from tests.mutation.page import render
from tests.mutation.trial import Outcome


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.original}")
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    text = (KERNELS / mutant.file).read_text()
    assert text.count(mutant.original) == 1
    mutated = ast.dump(ast.parse(text.replace(mutant.original, mutant.replacement)))
    assert mutated != ast.dump(ast.parse(text))


def test_each_mutant_is_another() -> None:
    assert len({mutant[:3] for mutant in MUTANTS}) == len(MUTANTS)


def test_the_page_tells_survivors() -> None:
    found = [
        Outcome("test_x.py::test_y", True),
        Outcome("test_z.py::test_z", False),
        Outcome(None, False),
    ]
    page = render(list(zip(MUTANTS, found, strict=False)))
    assert "Of 3 mutants 2 are caught, 1 of them without `--all`." in page
    assert page.count("**survives**") == 1
    assert "| test_x.py::test_y |" in page
    assert "| test_z.py::test_z `--all` |" in page

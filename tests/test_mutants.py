"""The list of mutants does not rot: each still is one line of a kernel, and another one."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.mutants import KERNELS, MUTANTS, Mutant
from tests.mutation.page import render


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.original}")
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    text = (KERNELS / mutant.file).read_text()
    assert text.count(mutant.original) == 1
    mutated = ast.dump(ast.parse(text.replace(mutant.original, mutant.replacement)))
    assert mutated != ast.dump(ast.parse(text))


def test_each_mutant_is_another() -> None:
    assert len({mutant[:3] for mutant in MUTANTS}) == len(MUTANTS)


def test_the_page_tells_survivors() -> None:
    page = render([(MUTANTS[0], "test_x.py::test_y"), (MUTANTS[1], None)])
    assert "Of 2 mutants 1 are caught." in page
    assert page.count("**survives**") == 1
    assert "| test_x.py::test_y |" in page

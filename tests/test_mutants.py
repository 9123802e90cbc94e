"""The edits that break the package: each is another program that can be read, at its place and nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutation.__main__ import page, sampled
from tests.mutation.edits import edits

CODE = '''\
import tl


def f(x, n: tl.constexpr = 1):
    """One line."""
    # a comment
    y = tl.load(
        x + 1, mask=x < n
    )
    z = tl.where(y > -n, tl.min(y), 0.5)
    if not z:
        raise ValueError(f"{n + 1}")
    return z[n] + ()
'''
EDITED = {
    (8, "x + 1", "x - 1"),
    (8, "1", "2"),
    (8, "x < n", "x <= n"),
    (7, "tl.load(x + 1, mask=x < n)", "tl.load(x + 1)"),
    (10, "tl.where(y > -n, tl.min(y), 0.5)", "tl.where(y > -n, 0.5, tl.min(y))"),
    (10, "y > -n", "y >= -n"),
    (10, "-n", "n"),
    (10, "tl.min(y)", "tl.max(y)"),
    (10, "0.5", "1.0"),
    (11, "not z", "z"),
    (13, "z[n]", "z[n + 1]"),
}


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("f.py").write_text(CODE)
    return Path("f.py")


def test_an_edit_is_of_what_a_function_computes(file):
    found = {
        (edit.line, edit.before.replace("( ", "(").replace(" )", ")"), edit.after)
        for edit in edits(file)
    }
    assert found == EDITED


def test_an_edit_changes_its_place_alone(file, tmp_path):
    for edit in edits(file):
        file.write_text(CODE)
        edit.apply(tmp_path)
        text = file.read_text()
        assert text.startswith(CODE[: edit.start])
        assert text.endswith(CODE[edit.end :])
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(CODE))


def test_a_sample_is_the_same_for_the_same_seed_and_of_the_package():
    first, again, other = sampled(10, 0), sampled(10, 0), sampled(10, 1)
    assert first == again != other
    assert len(set(first)) == 50
    for edit in first:
        ast.parse(edit.after, mode="eval")


def test_the_page_says_how_many_survive_and_which():
    noticed, survivor, *_ = sampled(1, 0)
    lines = page([(noticed, "test_lq.py::test_a"), (survivor, None)], 0).splitlines()
    assert "Of 2 random edits (seed 0) tests notice 1, 50%." in lines
    assert lines[-1].endswith("| test_lq.py::test_a |")
    assert lines[-2].endswith("| **survives** |")

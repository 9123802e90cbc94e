"""The documentation builds without a warning, and its examples do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.exhaustive
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def doctrees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Sphinx has read, which both builders share."""
    return tmp_path_factory.mktemp("doctrees")


def build(builder: str, doctrees: Path, out: Path) -> None:
    # pytest shows the output of a test that fails
    subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "-b",
            builder,
            "-c",
            "docs",
            "-d",
            doctrees,
            ".",
            out,
        ],
        cwd=ROOT,
        check=True,
    )


def test_pages(doctrees: Path, tmp_path: Path) -> None:
    build("html", doctrees, tmp_path)
    pages = {page.stem for page in (tmp_path / "docs").glob("*.html")}
    assert pages == {page.stem for page in (ROOT / "docs").glob("*.md")}


def test_examples(doctrees: Path, tmp_path: Path) -> None:
    build("doctest", doctrees, tmp_path)
    ran = re.search(r"^ *(\d+) tests?$", (tmp_path / "output.txt").read_text(), re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) > 0

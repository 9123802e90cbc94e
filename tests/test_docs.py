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
    """Keep what Sphinx has read, which both builders share."""
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


@pytest.fixture(scope="module")
def site(doctrees: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    build("html", doctrees, folder)
    return folder


def test_pages(site: Path) -> None:
    pages = {page.stem for page in (site / "docs").glob("*.html")}
    assert pages == {page.stem for page in (ROOT / "docs").glob("*.md")}


def test_pages_need_no_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="(.*?)"', text)
        assert loaded
        assert not [address for address in loaded if re.match(r"(\w+:)?//", address)], page


def test_formulas_are_no_raw_tex(site: Path) -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (site / "docs").glob("*.html")}
    for name in ("algorithm", "api", "losses"):
        assert '<math display="block">' in pages[name]
    for name, text in pages.items():
        prose = re.sub(r"<(pre|code)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.findall(r"\\[a-zA-Z([]+|\$", prose), name


def test_examples(doctrees: Path, tmp_path: Path) -> None:
    build("doctest", doctrees, tmp_path)
    ran = re.search(r"^ *(\d+) tests?$", (tmp_path / "output.txt").read_text(), re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) > 0

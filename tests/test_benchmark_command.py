"""The command, the README's blocks, and what is committed against the runs in reports/."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_json import cells, content, run, seconds

from bench.report import readme_from
from bench.reporting.page import file_stem, page
from bench.reporting.readme import MarkerError, refreshed
from bench.results import load

ROOT = Path(__file__).parents[1]
README = """# Title

<!-- benchmark: headline -->
old
<!-- end -->

between

<!-- benchmark: figures -->
<!-- end -->

after
"""


def test_readme_blocks_are_replaced_and_nothing_else():
    new = refreshed(README, {"headline": "a table", "figures": r"a \1 figure"})

    assert "old" not in new
    assert "\n\na table\n\n" in new
    assert r"a \1 figure" in new
    assert new.replace("\na table\n\n", "old\n").replace("\na \\1 figure\n\n", "") == README
    assert refreshed(new, {"headline": "a table", "figures": r"a \1 figure"}) == new


@pytest.mark.parametrize(
    "readme",
    [
        README.replace("headline", "other"),
        README + README,
        README.replace("<!-- end -->", "", 1),
        README.replace("<!-- end -->", ""),
    ],
)
def test_readme_without_its_markers(readme):
    with pytest.raises(MarkerError, match="needs one <!-- benchmark: headline -->"):
        refreshed(readme, {"headline": "a table"})


def test_command(tmp_path):
    one_dtype = cells(["float32"])
    runs = {
        "a": run(one_dtype, seconds),
        "b": run(one_dtype, seconds, machine={"name": "Some GPU", "kind": "cuda"}),
    }
    for name, made_up in runs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content(made_up)))
    (tmp_path / "README.md").write_text(README)

    def report(*names: str) -> str:
        files = [str(tmp_path / f"{name}.json") for name in names]
        options = ["--out", str(tmp_path / "reports"), "--readme", str(tmp_path / "README.md")]
        command = [sys.executable, "-m", "bench.report", *files, *options]
        subprocess.run(command, check=True, cwd=ROOT, timeout=300)
        return (tmp_path / "README.md").read_text()

    readme = report("a", "b")
    check_links(readme, tmp_path)
    check_links((tmp_path / "reports" / "benchmark-some-gpu.md").read_text(), tmp_path / "reports")
    assert readme.index("Some GPU") < readme.index("Some CPU")
    assert "benchmark-some-gpu-n-float32.png" in readme
    assert "benchmark-some-gpu-k-float32.png" in readme
    # one run again: the other's part of the README stays
    assert report("a") == readme


def check_links(text: str, folder: Path) -> None:
    """That everything which is linked to is there."""
    linked = [part.split(")")[0] for part in text.split("](")[1:]]
    assert linked
    for name in linked:
        file = folder / name
        assert file.is_file()
        if file.suffix == ".png":
            assert file.read_bytes().startswith(b"\x89PNG")


def test_readme_and_pages_are_what_the_committed_runs_say():
    files = sorted((ROOT / "reports").glob("benchmark-*.json"))
    command = "run: python -m bench.report reports/benchmark-*.json"

    assert files, "no reports/benchmark-DEVICE.json is committed"
    for file in files:
        made_up = load(file)
        assert file.stem == file_stem(made_up)
        assert file.with_suffix(".md").read_text() == page(made_up), command
        check_links(page(made_up), file.parent)
    readme = ROOT / "README.md"
    assert readme_from(ROOT / "reports", readme) == readme.read_text(), command

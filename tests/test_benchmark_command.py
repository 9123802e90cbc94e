"""The command, the README's blocks, and what is committed against the runs in reports/."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmark_json import cells, content, run, seconds

from bench.report import main, readme_from
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


def test_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_dtype = cells(["float32"])
    runs = {
        "a": run(one_dtype, seconds),
        "b": run(one_dtype, seconds, machine={"name": "Some GPU", "kind": "cuda"}),
    }
    for name, made_up in runs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content(made_up)))
    (tmp_path / "README.md").write_text(README)

    def readme_of(file: str) -> str:
        main([file, "--readme"])
        return (tmp_path / "README.md").read_text()

    readme_of("a.json")
    readme = readme_of("b.json")
    check_links(readme, tmp_path)
    check_links((tmp_path / "reports" / "benchmark-some-gpu.md").read_text(), tmp_path / "reports")
    assert readme.index("Some GPU") < readme.index("Some CPU")
    assert "benchmark-some-gpu-n-float32.png" in readme
    assert "benchmark-some-gpu-k-float32.png" in readme
    # one run again: the other's part of the README stays
    assert readme_of("a.json") == readme


def test_by_default_only_what_git_ignores_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(README)
    (tmp_path / "build").mkdir()
    made_up = run(cells(["float32"]), seconds)
    (tmp_path / "build" / "run.json").write_text(json.dumps(content(made_up)))
    main([])
    output = capsys.readouterr().out

    assert readme.read_text() == README
    files = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()}
    written = files - {"README.md", "build/run.json"}
    assert len(written) == 5
    assert all(file.startswith("build/reports/") and file in output for file in written)
    # and a short table
    assert max(map(len, output.splitlines())) <= 100
    assert len(output.splitlines()) < 40
    assert re.search(r"smooth_svm, ms +52.4 +52.4", output)


def test_without_a_run_the_command_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([])
    said = "build/run.json does not exist; pytest bench/ --benchmark-only writes one"
    assert said in capsys.readouterr().err


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
    command = "run: python -m bench.report reports/benchmark-DEVICE.json --readme"

    assert files, "no reports/benchmark-DEVICE.json is committed"
    for file in files:
        made_up = load(file)
        assert file.stem == file_stem(made_up)
        assert file.with_suffix(".md").read_text() == page(made_up), command
        check_links(page(made_up), file.parent)
    readme = ROOT / "README.md"
    assert readme_from(ROOT / "reports", readme) == readme.read_text(), command

"""The report of runs of the benchmark suite.

    pytest bench/ --benchmark-only --benchmark-json=FILE.json
    python -m bench.report FILE.json [FILE.json ...]

For each file writes reports/benchmark-DEVICE.md with its figures and, beside it, the file itself; then brings the
README's generated blocks up to date with all reports/benchmark-*.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from bench.reporting.figures import drawings
from bench.reporting.page import file_stem, page
from bench.reporting.readme import blocks, refreshed
from bench.results import Run, load

DOTS_PER_INCH = 200


def write(file: Path, run: Run, out: Path) -> None:
    stem = out / file_stem(run)
    kept = stem.with_name(f"{stem.name}.json")
    if file.resolve() != kept.resolve():
        shutil.copyfile(file, kept)
    for name, draw in drawings(run).items():
        draw().savefig(stem.with_name(f"{stem.name}-{name}.png"), dpi=DOTS_PER_INCH)
    stem.with_name(f"{stem.name}.md").write_text(page(run))


def readme_from(out: Path, readme: Path) -> str:
    """What the README should be, given the runs in `out`."""
    runs = [load(file) for file in sorted(out.glob("benchmark-*.json"))]
    return refreshed(readme.read_text(), blocks(runs, os.path.relpath(out, readme.parent) + "/"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    arguments = parser.parse_args()
    runs = {file: load(file) for file in arguments.files}
    if len({file_stem(run) for run in runs.values()}) < len(arguments.files):
        parser.error("one run for each device")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file, run in runs.items():
        write(file, run, arguments.out)
    arguments.readme.write_text(readme_from(arguments.out, arguments.readme))


if __name__ == "__main__":
    main()

"""The report of runs of the benchmark suite.

    pytest bench/ --benchmark-only
    python -m bench.report

For each file writes benchmark-DEVICE.md with its figures and, beside it, the file itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from bench.reporting import sections, terminal
from bench.reporting.figures import drawings
from bench.reporting.page import file_stem, page
from bench.reporting.readme import blocks, refreshed
from bench.results import Run, load

DOTS_PER_INCH = 200
README = Path("README.md")


def write(file: Path, run: Run, out: Path) -> list[Path]:
    stem = file_stem(run)
    kept, text = out / f"{stem}.json", out / f"{stem}.md"
    if file.resolve() != kept.resolve():
        shutil.copyfile(file, kept)
    text.write_text(page(run))
    figures = {out / f"{stem}-{name}.png": draw for name, draw in drawings(run).items()}
    for figure, draw in figures.items():
        draw().savefig(figure, dpi=DOTS_PER_INCH)
    return [kept, text, *figures]


def readme_from(out: Path, readme: Path) -> str:
    """What the README should be, given the runs in `out`."""
    runs = [load(file) for file in sorted(out.glob("benchmark-*.json"))]
    return refreshed(readme.read_text(), blocks(runs, os.path.relpath(out, readme.parent) + "/"))


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files",
        type=Path,
        nargs="*",
        metavar="FILE.json",
        default=[Path("build/run.json")],
        help="default: build/run.json, which the first command writes",
    )
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    parser.add_argument(
        "--readme",
        action="store_true",
        help="bring README.md's tables and figures up to date with the runs in OUT: --out reports",
    )
    arguments = parser.parse_args(given)
    for file in arguments.files:
        if not file.is_file():
            parser.error(f"{file} does not exist; pytest bench/ --benchmark-only writes one")
    runs = {file: load(file) for file in arguments.files}
    if len({file_stem(run) for run in runs.values()}) < len(arguments.files):
        parser.error("one run for each device")
    arguments.out.mkdir(parents=True, exist_ok=True)
    written = [path for file, run in runs.items() for path in write(file, run, arguments.out)]
    if arguments.readme:
        README.write_text(readme_from(arguments.out, README))
        written.append(README)
    console = Console(width=min(Console().width, terminal.WIDTH))
    for run in runs.values():
        console.print(Markdown(f"{sections.busy(run)}\n\n{sections.headline(run)}"))
    console.print("Written:", *written, sep="\n", highlight=False)


if __name__ == "__main__":
    main()

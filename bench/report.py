"""The report of runs of the benchmark suite.

    pytest bench/ --benchmark-only
    python -m bench.report

Writes benchmark-DEVICE.md with its figures and, beside it, the results themselves.
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
        "file",
        type=Path,
        nargs="?",
        metavar="FILE.json",
        default=Path("build/run.json"),
        help="default: build/run.json, which the first command writes",
    )
    parser.add_argument("--out", type=Path, help="default: build/reports, with --readme reports")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="bring README.md's tables and figures up to date with the runs in OUT",
    )
    arguments = parser.parse_args(given)
    if not arguments.file.is_file():
        parser.error(f"{arguments.file} does not exist; pytest bench/ --benchmark-only writes one")
    run = load(arguments.file)
    out = arguments.out or Path("reports" if arguments.readme else "build/reports")
    out.mkdir(parents=True, exist_ok=True)
    written = write(arguments.file, run, out)
    if arguments.readme:
        README.write_text(readme_from(out, README))
        written.append(README)
    console = Console(width=min(Console().width, terminal.WIDTH), highlight=False, markup=False)
    console.print(sections.busy(run), end="\n\n")
    if headline := sections.headline(run):
        console.print(Markdown(headline))
    else:  # a part of the suite
        console.print(*terminal.measurements(run), sep="\n")
    console.print("Written:", *written, sep="\n")


if __name__ == "__main__":
    main()

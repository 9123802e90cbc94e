"""The report of a run of the benchmark suite is made by the second of these commands.

    pytest bench/ --benchmark-only
    python -m bench.report

It writes benchmark-DEVICE.md with its figures, and the measurements as CSV, of which it can be written again.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from bench.arguments import Parser
from bench.report.figures import draw, drawings
from bench.report.page import busy, page, readme_blocks, refreshed
from bench.report.runs import load
from bench.report.tables import faster, headline

README = Path("README.md")


def write(files: Sequence[Path], out: Path) -> list[Path]:
    """The CSV, the page and the figures of a run are written."""
    run = load(*files)
    table, text = out / f"{run.stem}.csv", out / f"{run.stem}.md"
    run.save(table)
    run = load(table)  # whose numbers have fewer digits
    text.write_text(page(run))
    figures = {out / f"{run.stem}-{name}.png": drawing for name, drawing in drawings(run).items()}
    for figure, drawing in figures.items():
        draw(drawing).savefig(figure, dpi=200)
    return [table, text, *figures]


def readme_from(out: Path, readme: Path) -> str:
    """The README should be this, given the runs in `out`."""
    runs = [load(file) for file in sorted(out.glob("benchmark-*.csv"))]
    blocks = readme_blocks(runs, os.path.relpath(out, readme.parent) + "/")
    return refreshed(readme.read_text(), blocks)


def main(given: Sequence[str] | None = None) -> None:
    parser = Parser("bench.report", __doc__)
    default = Path("build/run.json")
    file = f"a run's JSON or CSV, or its parts ({default}, which the first command writes)"
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", default=[default], help=file)
    parser.add_argument("--out", type=Path, help="default: build/reports, with --readme reports")
    readme = "bring README.md's tables and figure up to date with the runs in OUT"
    parser.add_argument("--readme", action="store_true", help=readme)
    arguments = parser.parse_args(given)
    for each in arguments.files:
        if not each.is_file():
            parser.error(f"{each} does not exist; pytest bench/ --benchmark-only writes one")
    out = arguments.out or Path("reports" if arguments.readme else "build/reports")
    out.mkdir(parents=True, exist_ok=True)
    written = write(arguments.files, out)
    if arguments.readme:
        README.write_text(readme_from(out, README))
        written.append(README)
    run = load(written[0])
    console = Console(width=min(Console().width, 100), highlight=False, markup=False)
    console.print(busy(run), end="\n\n")
    # A part of the suite may have no headline.
    console.print(Markdown(headline(run) or faster(run.measured)))
    console.print("Written:", *written, sep="\n")


if __name__ == "__main__":
    main()

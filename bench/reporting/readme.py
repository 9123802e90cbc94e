"""Blocks of the README that are generated: what stands between `<!-- benchmark: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.reporting import sections
from bench.reporting.figures import drawings
from bench.reporting.page import file_stem, image
from bench.results import Run

CAPTIONS = {
    "n": "Time per score against the number of classes; a level line is linear in n.",
    "k": "Time per score against k; the dotted line is proportional to k.",
}
START, END = "<!-- benchmark: ", "<!-- end -->"


class MarkerError(ValueError):
    """The README's markers and the blocks that there are do not match."""


def blocks(runs: Sequence[Run], folder: str) -> dict[str, str]:
    """The headline table of each device; figures of a GPU, or else of a CPU. Reports are in `folder`."""
    in_order = sorted(runs, key=lambda run: (run.machine["kind"] == "cpu", run.machine["name"]))
    main = in_order[0]
    figures = []
    for which, caption in CAPTIONS.items():
        names = [name for name in drawings(main) if name.startswith(f"{which}-")]
        figures += [f"{image(main, name, folder)}\n\n{caption}" for name in names[:1]]
    return {
        "headline": "\n\n".join(_headline(run, folder) for run in in_order),
        "figures": "\n\n".join(figures),
    }


def refreshed(readme: str, content: Mapping[str, str]) -> str:
    """The README with this content in its blocks."""
    for name, text in content.items():
        start = f"{START}{name} -->\n"
        before, *rest = readme.split(start)
        old, end, after = rest[0].partition(END) if len(rest) == 1 else ("", "", "")
        if not end or START in old:
            raise MarkerError(f"the README needs one {start[:-1]}, then {END}")
        readme = f"{before}{start}\n{text}\n\n{end}{after}"
    return readme


def _headline(run: Run, folder: str) -> str:
    of = f"{run.machine['name']}, {run.date}, commit {run.commit}"
    link = f"[All of it]({folder}{file_stem(run)}.md)"
    return "\n\n".join(
        filter(None, [f"{of}. {sections.busy(run)} {link}.", sections.headline(run)])
    )

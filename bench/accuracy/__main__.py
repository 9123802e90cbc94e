"""The errors of the losses and of the references against 60-digit truth, and where each breaks.

    python -m bench.accuracy

Writes accuracy.md and its figure.  The authors' package `topk` takes part where it can be imported; the kernels
run in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

import rich
from pytest_benchmark.utils import get_commit_info

from bench.accuracy.figure import draw
from bench.accuracy.points import all_points
from bench.accuracy.report import FIGURE, page
from bench.accuracy.run import Results, run
from bench.report.markdown import table

_PACKAGES = ("torch", "triton", "mpmath")
_DOTS_PER_INCH = 150


def provenance(results: Results) -> str:
    commit = get_commit_info()
    versions = {p: _version(p) for p in _PACKAGES}
    rows = [
        ["command", "`python -m bench.accuracy`"],
        [
            "versions",
            ", ".join(
                f"{p} {v}" for p, v in {"python": platform.python_version(), **versions}.items()
            ),
        ],
        ["processor", platform.machine()],
        ["commit", f"{commit['id'][:10]}{' with changes' if commit['dirty'] else ''}"],
        ["date", datetime.datetime.now(datetime.UTC).date().isoformat()],
        ["seed", str(results.seed)],
        ["points", f"{len(all_points())}, and the adversarial suite"],
    ]
    return table(["", ""], rows, text_columns=2)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    results = run(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    # first of all, for what follows changes the reports of the commit
    text = page(results, provenance(results))
    draw(results.measured).savefig(arguments.out / FIGURE, dpi=_DOTS_PER_INCH)
    report = arguments.out / "accuracy.md"
    report.write_text(text)
    rich.print(f"Written: {report}")


if __name__ == "__main__":
    main()

"""Compile every kernel of the ledger and write what comes of it.

python -m bench.ledger

kernels.json is for the tests and for bench/model.py, which look for it in reports/, kernels.md is to be read.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import rich
from rich.progress import track

from bench.ledger.entry import PATH, Ledger, load_ledger, save_ledger
from bench.ledger.page import PAGE, render
from bench.model import H200


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--page", action="store_true", help="write only kernels.md, of reports/kernels.json"
    )
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    arguments = parser.parse_args(given)
    ledger = load_ledger() if arguments.page else _compile()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.page:
        save_ledger(ledger, arguments.out / PATH.name)
    page = arguments.out / PAGE.name
    page.write_text(render(ledger, H200))
    rich.print(f"Written: {page}")


def _compile() -> Ledger:
    os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported
    import triton

    from bench.ledger.cases import JOBS
    from bench.ledger.pool import compiling

    with compiling(JOBS) as compiled:
        entries = [entry for job in track(JOBS) for entry in compiled[job].result()]
    return Ledger(triton.__version__, {entry.name: entry for entry in entries})


if __name__ == "__main__":
    main()

"""Compile every kernel of the ledger and write what comes of it to reports/.

python -m bench.ledger

kernels.json is for the tests and for bench/model.py, kernels.md is to be read.
"""

from __future__ import annotations

import argparse
import os

from rich.progress import track

from bench.ledger.entry import Ledger, load_ledger, save_ledger
from bench.ledger.page import PAGE, render
from bench.model import H200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--page", action="store_true", help="write only kernels.md, of kernels.json"
    )
    if not parser.parse_args().page:
        save_ledger(_compile())
    PAGE.write_text(render(load_ledger(), H200))


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

"""Compile every kernel of the ledger and write what comes of it.

python -m bench.ledger
python -m bench.ledger --diff BEFORE.json AFTER.json   # exit code 1 if something is worse

The tests look for kernels.json in reports/; kernels.md is to be read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import rich
from rich.progress import track

from bench.ledger.file import PAGE, PATH, Ledger, differences, load, render, save, worse


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--page", action="store_true", help="write only kernels.md, of reports/kernels.json"
    )
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    parser.add_argument("--diff", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    arguments = parser.parse_args(given)
    if arguments.diff:
        return _compare(*map(load, arguments.diff))
    ledger = load() if arguments.page else _compile()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.page:
        save(ledger, arguments.out / PATH.name)
    page = arguments.out / PAGE.name
    page.write_text(render(ledger))
    rich.print(f"Written: {page}")
    return 0


def _compare(before: Ledger, after: Ledger) -> int:
    if before.triton != after.triton:
        rich.print(f"Triton {before.triton} and {after.triton} are compared.")
    changed = differences(before, after)
    found = [
        line
        for name in before.kernels.keys() & after.kernels.keys()
        for line in worse(name, before.kernels[name], after.kernels[name])
    ]
    print("" if changed.empty else changed.reset_index(names="kernel").to_markdown(index=False))
    print(*(f"WORSE {line}" for line in sorted(found)), sep="\n")
    for name in before.kernels.keys() ^ after.kernels.keys():
        print(f"{name} is in one of them only")
    print(f"{len(changed)} of {len(after.kernels)} kernels differ, {len(found)} facts are worse")
    return int(bool(found))


def _compile() -> Ledger:
    os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported
    import triton

    from bench.ahead_of_time import names
    from bench.ledger.cases import JOBS
    from bench.ledger.pool import compile_all

    compiled = track(compile_all(JOBS), total=len(JOBS))
    found = {name: facts for launches in compiled for name, facts in launches.items()}
    kernels = {name: found[name] for job in JOBS for name in names(*job)}
    return Ledger(triton.__version__, kernels)


if __name__ == "__main__":
    sys.exit(main())

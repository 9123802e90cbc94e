"""Compile every kernel of the ledger and write what comes of it.

    python -m bench.ledger
    python -m bench.ledger --diff BEFORE.json AFTER.json   # exit code 1 if something is worse

The tests look for kernels.json in reports/; kernels.md is to be read.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import triton
from rich.progress import track

from bench.ahead_of_time import names
from bench.arguments import Parser
from bench.ledger.cases import JOBS
from bench.ledger.facts import compile_all
from bench.ledger.file import PAGE, PATH, Ledger, differences, load, render, save, worse


def main(given: Sequence[str] | None = None) -> int:
    parser = Parser("bench.ledger", __doc__)
    page = "write only kernels.md, of reports/kernels.json"
    parser.add_argument("--page", action="store_true", help=page)
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    parser.add_argument("--diff", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    arguments = parser.parse_args(given)
    if arguments.diff:
        return _compare(*map(load, arguments.diff))
    arguments.out.mkdir(parents=True, exist_ok=True)
    ledger = load() if arguments.page else _compile()
    if not arguments.page:
        save(ledger, arguments.out / PATH.name)
    page = arguments.out / PAGE.name
    page.write_text(render(ledger))
    print(f"Written: {page}")
    return 0


def _compare(before: Ledger, after: Ledger) -> int:
    print(f"Triton {before.triton} and {after.triton} are compared.")
    changed = differences(before, after)
    shared = before.kernels.keys() & after.kernels.keys()
    found = [worse(name, before.kernels[name], after.kernels[name]) for name in sorted(shared)]
    lines = [f"WORSE {line}" for of_kernel in found for line in of_kernel]
    if len(changed):
        print(changed.reset_index(names="kernel").to_markdown(index=False))
    print(*lines, sep="\n")
    for name in before.kernels.keys() ^ after.kernels.keys():
        print(f"{name} is in one of them only")
    print(f"{len(changed)} of {len(after.kernels)} kernels differ, {len(lines)} facts are worse")
    return int(bool(lines))


def _compile() -> Ledger:
    compiled = track(compile_all(JOBS), total=len(JOBS))
    found = {name: facts for launches in compiled for name, facts in launches.items()}
    return Ledger(triton.__version__, {name: found[name] for job in JOBS for name in names(*job)})


if __name__ == "__main__":
    sys.exit(main())

"""Break the kernels one line at a time and see which test notices.

python -m tests.mutation

Runs the tests in Triton's interpreter on a copy of the package for each mutant, two at a time, until the first fails:
those that are run by default, then all.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutation.mutants import MUTANTS
from tests.mutation.page import render, row
from tests.mutation.trial import check_clean, outcome

_PAGE = Path("reports/mutants.md")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="store_true", help=f"write {_PAGE}, too")
    write_page = parser.parse_args().page
    check_clean()
    outcomes = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for mutant, found in zip(MUTANTS, pool.map(outcome, MUTANTS), strict=True):
            outcomes.append((mutant, found))
            print(row(mutant, found), flush=True)  # noqa: T201
    if write_page:
        _PAGE.write_text(render(outcomes))


if __name__ == "__main__":
    main()

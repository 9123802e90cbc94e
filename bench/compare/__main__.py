"""Did a change make the losses slower?  Two commits, measured in alternation on one machine.

    python -m bench.compare BASE [NEW] [-k TEXT] [--pairs 20] [--fail-above 1.1]

BASE and NEW are commits of the repository in the current folder; without NEW it is the working tree, with
what is not committed yet.  Forward + backward of each loss is timed on the GPU, or on the CPU where there is none, in
the order BASE NEW NEW BASE ..., so that a machine that slows down slows both.  Each pair of neighbours gives a ratio
NEW / BASE; the table has the median and the quartiles of these, and marks a case where both quartiles are on one side
of 1 by more than 3 %.  A case whose loss or gradient differs between the two by more than rounding is not timed.

Exit codes, as `git bisect run` wants them:

    0    no case is too slow
    1    in some case the lower quartile of the ratio is above --fail-above
    2    the command line is wrong
    125  it cannot be told: results differ, no case is in both commits, or a commit does not exist or does not run

Which commit made it slow?  Commits from before this command need a copy of it, and GOOD must be a hash or a tag, as
HEAD moves:

    cp -r bench /tmp/copy/ && git bisect start BAD GOOD
    git bisect run env PYTHONPATH=/tmp/copy python -P -m bench.compare GOOD
"""

from __future__ import annotations

import argparse
import statistics
import sys

from rich.console import Console
from rich.table import Table

from bench.compare.checkout import ComparisonError, checkout
from bench.compare.measure import Case, measure
from bench.compare.outcomes import UNKNOWN, Outcome, Timed, exit_code, verdict


def table(outcomes: dict[Case, Outcome], fail_above: float) -> Table:
    shown = Table("case")
    for name in ("base, ms", "new, ms", "new / base", "quartiles"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("")
    for case, outcome in outcomes.items():
        numbers = [""] * 4
        if isinstance(outcome, Timed):
            low, median, high = outcome.quartiles
            times = [f"{statistics.median(x) * 1e3:.3f}" for x in (outcome.base, outcome.new)]
            numbers = [*times, f"{median:.3f}", f"{low:.3f} to {high:.3f}"]
        shown.add_row(str(case), *numbers, verdict(outcome, fail_above))
    return shown


def number_of_pairs(text: str) -> int:
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError("a spread needs 2 pairs")
    return number


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", metavar="BASE")
    parser.add_argument("new", metavar="NEW", nargs="?")
    parser.add_argument("-k", metavar="TEXT", default="", help="only cases with this in their name")
    parser.add_argument("--pairs", type=number_of_pairs, default=20, help="default: 20")
    parser.add_argument("--fail-above", type=float, default=1.1, help="default: 1.1")
    options = parser.parse_args(arguments)
    try:
        with checkout(options.base) as base, checkout(options.new) as new:
            machine, outcomes = measure(base, new, options.k, options.pairs)
    except ComparisonError as reason:
        parser.exit(UNKNOWN, f"{parser.prog}: {reason}\n")
    # A file or a pipe has no width to keep to.
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False)
    console.print(f"base: {base.name}\nnew:  {new.name}\n{machine}")
    console.print(table(outcomes, options.fail_above))
    return exit_code(list(outcomes.values()), options.fail_above)


if __name__ == "__main__":
    sys.exit(main())

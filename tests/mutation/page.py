"""What became of the mutants, as a page to be read."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mutation.mutants import Mutant
from tests.mutation.trial import Outcome


def render(outcomes: Sequence[tuple[Mutant, Outcome]]) -> str:
    caught = sum(outcome.test is not None for _, outcome in outcomes)
    by_default = sum(outcome.by_default for _, outcome in outcomes)
    lines = [
        "# Mutants",
        "",
        "The kernels broken on purpose, one line at a time, and the first test in Triton's interpreter that fails: "
        "`python -m tests.mutation --page`.",
        "",
        f"Of {len(outcomes)} mutants {caught} are caught, {by_default} of them without `--all`.",
        "",
        "| file | line | replaced by | caught by |",
        "|---|---|---|---|",
        *(row(mutant, outcome) for mutant, outcome in outcomes),
    ]
    return "\n".join(lines) + "\n"


def row(mutant: Mutant, outcome: Outcome) -> str:
    caught_by = outcome.test or "**survives**"
    if outcome.test is not None and not outcome.by_default:
        caught_by += " `--all`"
    cells = (mutant.file, _code(mutant.original), _code(mutant.replacement), caught_by)
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return f"`{line}`"

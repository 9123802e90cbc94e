"""What became of the mutants, as a page to be read."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mutation.mutants import Mutant


def render(outcomes: Sequence[tuple[Mutant, str | None]]) -> str:
    survivors = [mutant for mutant, test in outcomes if test is None]
    lines = [
        "# Mutants",
        "",
        "The kernels broken on purpose, one line at a time, and the first test in Triton's interpreter that fails: "
        "`python -m tests.mutation --page`.",
        "",
        f"Of {len(outcomes)} mutants {len(outcomes) - len(survivors)} are caught.",
        "",
        "| file | line | replaced by | caught by |",
        "|---|---|---|---|",
        *(row(mutant, test) for mutant, test in outcomes),
    ]
    return "\n".join(lines) + "\n"


def row(mutant: Mutant, test: str | None) -> str:
    cells = (mutant.file, _code(mutant.original), _code(mutant.replacement), test or "**survives**")
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return f"`{line}`"

"""The errors of the losses and of the references against 60-digit truth, and where each breaks.

    python -m bench.accuracy

Writes accuracy.md and its figure.  The authors' package `topk` takes part where it can be imported; the kernels
run in Triton's interpreter.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

from bench.accuracy.measuring import Results, run
from bench.accuracy.page import FIGURE, draw, page
from bench.accuracy.points import all_points
from bench.arguments import Parser
from bench.machine import commit


def provenance(results: Results) -> str:
    installed = {x.name: x.version for x in importlib.metadata.distributions()}
    versions = [f"{x} {installed.get(x, 'not installed')}" for x in ("torch", "triton", "mpmath")]
    return (
        f"`python -m bench.accuracy --seed {results.seed}`: commit {', '.join(commit().values())}, "
        f"Python {platform.python_version()}, {', '.join(versions)}, "
        f"{platform.machine()}; {len(all_points())} points and the adversarial rows of the tests."
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = Parser("bench.accuracy", __doc__)
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    results = run(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    # first of all, for what follows changes the reports of the commit
    text = page(results, provenance(results))
    draw(results.measured).savefig(arguments.out / FIGURE, dpi=150)
    report = arguments.out / "accuracy.md"
    report.write_text(text)
    print(f"Written: {report}")


if __name__ == "__main__":
    main()

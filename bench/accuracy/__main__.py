"""The errors of the losses and of the references are measured against 60-digit truth, and where each breaks.

    python -m bench.accuracy

Writes accuracy.md and its figure.  The authors' package `topk` takes part where it can be imported; the kernels
run in Triton's interpreter.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.accuracy.measuring import run
from bench.accuracy.page import FIGURE, draw, page
from bench.arguments import Parser


def main(given: Sequence[str] | None = None) -> None:
    parser = Parser("bench.accuracy", __doc__)
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    results = run(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    # first of all, for what follows changes the reports of the commit
    text = page(results)
    draw(results.measured).savefig(arguments.out / FIGURE, dpi=150)
    report = arguments.out / "accuracy.md"
    report.write_text(text)
    print(f"Written: {report}")


if __name__ == "__main__":
    main()

"""What a terminal shows of a run."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator

from bench.reporting.axes import words
from bench.reporting.markdown import number, percent
from bench.reporting.sections import busy, by_reason
from bench.results import LeftOut, Run

WIDTH = 100
_LINE = "{:26}{:>12}{:>12}{:>10} {}"


def lines(run: Run | None, left_out: Iterable[LeftOut]) -> Iterator[str]:
    """Measurements of a task below each other, the fastest first; what was left out, by reason."""
    if run:
        yield from measurements(run)
        yield ""
        yield from textwrap.wrap(busy(run), WIDTH)
    for name, why, cells in by_reason(left_out):
        yield from textwrap.wrap(f"{len(cells)} left out: {name}, {why}", WIDTH)


def measurements(run: Run) -> Iterator[str]:
    by_task = defaultdict(list)
    for m in run.measurements:
        by_task[m.cell.task].append(m)
    yield _LINE.format("(ratio: to the fastest)", "median, ms", "IQR", "ratio", "")
    for task, same in by_task.items():
        yield f"{words(n=task.n, k=task.k, batch=task.batch)}, {task.dtype}, {task.work}"
        fastest, *_ = by_speed = sorted(same, key=lambda m: m.seconds)
        for m in by_speed:
            ratio = number(m.seconds / fastest.seconds)
            numbers = (number(1e3 * m.seconds), percent(m.spread), ratio)
            yield _LINE.format(f"  {m.cell.implementation}", *numbers, "" if m.steady else "?")

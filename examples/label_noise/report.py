"""Tables of the results in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from rich import box
from rich.table import Table
from studies.document import to_markdown
from studies.significance import MARKS, SIGNIFICANT
from torch import Tensor

from label_noise.losses import CROSS_ENTROPY, LOSSES
from label_noise.runs import NO_NOISE, Condition, compared
from label_noise.selection import REGIMES, TOPS, Result, against_cross_entropy

LEGEND = f"""\
Test accuracy in percent on clean labels, mean ± standard deviation over the seeds; the highest mean
of a column is bold. ↑ and ↓: better and worse than cross-entropy with the same seeds by a paired
t-test at p < {SIGNIFICANT}; no arrow: no such difference. Of all that are tested, one in a hundred may
pass by chance.

Top-1 and top-k columns are chosen separately. **Tuned**: learning rate, weight decay and the
moment to stop are those of the highest mean accuracy on the noisy validation split. **To the end**:
the last recipe of the grid, trained to its end, nothing chosen.
"""


def cell(accuracies: Tensor, *, best: bool, comparison: int) -> str:
    mean = f"{accuracies.mean():.1f}"
    if len(accuracies) > 1:
        mean += f" ± {accuracies.std():.1f}"
    return (f"**{mean}**" if best else mean) + MARKS[comparison]


def rows(
    results: Mapping[Result, Tensor], conditions: Sequence[Condition], top: int, regime: str
) -> Iterable[tuple[str, ...]]:
    """Yield every loss's name with a cell for every condition."""
    losses = [loss for loss in LOSSES if all(loss in compared(c) for c in conditions)]
    for loss in losses:
        cells = []
        for condition in conditions:
            result = Result(condition, loss, top, regime)
            means = [results[result._replace(loss=other)].mean() for other in losses]
            cells.append(
                cell(
                    results[result],
                    best=bool(results[result].mean() == max(means)),
                    comparison=against_cross_entropy(results, result),
                )
            )
        yield loss, *cells


def name(condition: Condition) -> str:
    if condition.noise == NO_NOISE:
        return "no noise"
    return f"{condition.noise} {100 * condition.rate:g} %"


def noise_table(
    results: Mapping[Result, Tensor], conditions: Sequence[Condition], top: int, regime: str
) -> str:
    table = Table("loss", *map(name, conditions), box=box.MARKDOWN)
    for row in rows(results, conditions, top, regime):
        table.add_row(*row)
    return to_markdown(table)


def limited_table(results: Mapping[Result, Tensor], conditions: Sequence[Condition], k: int) -> str:
    headers = (f"{100 * condition.fraction:g} %" for condition in conditions)
    table = Table("accuracy", "loss", *headers, box=box.MARKDOWN)
    for regime, (top, top_k) in product(REGIMES, zip(TOPS, (1, k), strict=True)):
        for row in rows(results, conditions, top, regime):
            table.add_row(f"top-{top_k}, {regime}", *row)
    return to_markdown(table)


def verdict_table(results: Mapping[Result, Tensor], conditions: Sequence[Condition], k: int) -> str:
    """Count the conditions where each loss is significantly better or worse."""
    columns = list(product(zip(TOPS, (1, k), strict=True), REGIMES))
    headers = (f"top-{top_k}, {regime}" for (_, top_k), regime in columns)
    table = Table(f"against {CROSS_ENTROPY}", *headers, box=box.MARKDOWN)
    for loss in LOSSES:
        if loss == CROSS_ENTROPY:
            continue
        cells = []
        for (top, _), regime in columns:
            signs = [
                against_cross_entropy(results, Result(c, loss, top, regime)) for c in conditions
            ]
            cells.append(f"better in {signs.count(1)}, worse in {signs.count(-1)}")
        table.add_row(loss, *cells)
    return to_markdown(table)

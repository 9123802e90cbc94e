"""The candidates: every score of the positions that may hold one of the largest, read again."""

import triton
import triton.language as tl


@triton.jit
def load(
    row_scores,
    positions,
    label,
    active,
    n,
    WIDTH: tl.constexpr,
    COUNT: tl.constexpr,
    HEIGHT: tl.constexpr,
    LANES: tl.constexpr,
    FOLD: tl.constexpr,
    SLOTS: tl.constexpr,
    ACC: tl.constexpr,
):
    """The scores of COUNT positions, -inf for the label and outside the row, and their columns.

    positions: tuple of [ROWS, WIDTH], each position as often as it has scores.
    """
    values = ()
    columns = ()
    for i in tl.static_range(len(positions)):
        index = i * WIDTH + tl.arange(0, WIDTH)[None, :]
        column = positions[i] + index % HEIGHT // FOLD * LANES + index % FOLD * SLOTS
        inside = active[:, None] & (column < n) & (column != label[:, None])
        if (i + 1) * WIDTH > COUNT * HEIGHT:
            inside = inside & (index < COUNT * HEIGHT)
        x = tl.load(row_scores + column, mask=inside, other=float("-inf"))
        values = values + (x.to(ACC),)
        columns = columns + (column,)
    return values, columns

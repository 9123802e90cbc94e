"""The largest scores of each row of a block are found, with multiplicity and without their places."""

import numpy as np

from triton_topk.native.arithmetic import largest, smallest, some
from triton_topk.native.compile import jit
from triton_topk.native.lanes import LANES, ROWS, by_slot, of_rows
from triton_topk.native.vectors import full, load, store


@jit
def select(x, steps, slots, t, lists, spare, top):
    """top[j] = the j-th largest of each row, j < t."""
    # A lane has few of the largest of its row; where it has more than its list holds, all lists are made longer.
    longest = min(t, steps)
    length = min(longest, 4 + 2 * t // slots)
    complete = False
    while not complete:
        list_lanes(x, steps, length, lists)
        last = load(lists, (length - 1) * LANES, LANES)
        merge_lanes(lists, length, slots, t, spare, top)
        lowest = of_rows(load(top, (t - 1) * ROWS, ROWS), slots, x)
        # what a lane has beyond its list is no larger than the last of the list
        complete = length == longest or not some(last > lowest)
        length = longest


@jit
def list_lanes(x, steps, length, lists):
    """lists[j] = the j-th largest score of each lane, j < length."""
    for j in range(length):
        store(lists, j * LANES, full(-np.inf, load(x, 0, LANES)))
    for i in range(0, steps, 4):
        a, b = load(x, i * LANES, LANES), load(x, (i + 1) * LANES, LANES)
        c, d = load(x, (i + 2) * LANES, LANES), load(x, (i + 3) * LANES, LANES)
        if some(largest(largest(a, b), largest(c, d)) > load(lists, (length - 1) * LANES, LANES)):
            for j in range(length):
                v = load(lists, j * LANES, LANES)
                v, a = largest(a, v), smallest(v, a)
                v, b = largest(b, v), smallest(v, b)
                v, c = largest(c, v), smallest(v, c)
                v, d = largest(d, v), smallest(v, d)
                store(lists, j * LANES, v)


@jit
def merge_lanes(lists, length, slots, t, spare, top):
    """top[j] = the j-th largest of the lists of all lanes of each row, j < t."""
    for j in range(length):
        store(lists, j * LANES, by_slot(load(lists, j * LANES, LANES), slots))
    lanes = LANES
    while lanes > LANES // slots:
        lanes //= 2
        total = min(2 * length, t)
        for c in range(0, max(lanes, ROWS), ROWS):
            merge_lists(lists, c, c + lanes, length, total, spare)
        length = total
    nothing = full(-np.inf, load(top, 0, ROWS))
    for j in range(t):
        store(top, j * ROWS, load(lists, j * LANES, ROWS) if j < length else nothing)


@jit
def merge_lists(lists, a, b, length, total, spare):
    """Merge the lists of the lanes from b on into those of the lanes from a on, which become `total` long."""
    for j in range(length):
        store(spare, j * ROWS, load(lists, j * LANES + b, ROWS))
    for j in range(length, total):
        store(lists, j * LANES + a, full(-np.inf, load(spare, 0, ROWS)))
    for i in range(length):
        x = load(spare, i * ROWS, ROWS)
        for j in range(i, total):
            v = load(lists, j * LANES + a, ROWS)
            store(lists, j * LANES + a, largest(x, v))
            x = smallest(v, x)

"""The command prints a report, and exits with 0 if every loss is right."""

from __future__ import annotations

import time
import traceback

import torch

from triton_topk.check import accuracy, environment, speed


def main() -> int:
    """Print the report; return 0 if every loss is right, else 1."""
    start = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(*environment.lines(device), sep="\n")

    print("\nLargest errors, loss/gradient, against the definitions in float64\n")
    print(accuracy.HEADER, flush=True)
    rows = []
    for row in accuracy.rows(device):
        print(row.line, flush=True)  # kernels are compiled in between
        rows.append(row)
    print(accuracy.TAYLOR)
    for reason in dict.fromkeys(reason for row in rows for reason in row.why):
        print(reason)
    failures = [failure for row in rows for failure in row.failures]
    if failures:
        print()
        print(*(f"FAILED {failure.what}" for failure in failures), sep="\n")
        exceptions = [failure.exception for failure in failures if failure.exception]
        for exception in exceptions[:1]:
            print("\nThe first exception:\n", "".join(traceback.format_exception(exception)))
        print(f"{len(failures)} checks failed.")
        return 1

    print(
        f"\nForward and backward of {speed.ROWS} x {speed.CLASSES} scores, float32: the least of "
        f"{speed.ROUNDS} rounds, in turns\n",
        flush=True,
    )
    print(*speed.table(device), sep="\n")
    print(f"\nEvery loss is right. {time.perf_counter() - start:.0f} seconds.")
    return 0

"""What the model of bench/model.py says beside what was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.implementations import IMPLEMENTATIONS
from bench.model import DEVICES, Device, Prediction
from bench.reporting.axes import place
from bench.reporting.markdown import number, percent, table
from bench.results import Run

Key = tuple[str, int, int | None, str, str]  # implementation, n, k, dtype, work


def device_of(run: Run) -> Device | None:
    """The run's device, if it is one that the model knows."""
    name = run.machine["name"]
    return next((x for x in DEVICES if re.search(rf"\b{x.name}\b", name)), None)


def introduction(device: Device) -> str:
    return f"""\
The time of a score is, summed over the launches that it takes, that of the slowest of: moving its bytes at
{device.copy_bandwidth / 1e12:.1f} TB/s, issuing the instructions of the kernel as [kernels.json](kernels.json) has
them, and executing those that one kind of unit can. It is a bound from below for an {device.name} that is full of work:
so at the largest batch that was measured, and of the kernel alone. The bound is that of the longest launch. The highest
ratios of measured to predicted come first."""


def section(run: Run, predicted: Mapping[Key, Prediction]) -> str:
    largest = {}
    for m in sorted(run.measurements, key=lambda m: m.cell.batch):
        cell = m.cell
        k = cell.k if IMPLEMENTATIONS[cell.implementation].has_k else None
        largest[cell.implementation, cell.n, k, cell.dtype, cell.work] = m
    compared = []
    for key in predicted.keys() & largest.keys():
        cell = largest[key].cell
        seconds = predicted[key].time * cell.n * cell.batch
        measured = largest[key].kernel or largest[key].seconds
        compared.append((measured / seconds, cell, seconds, predicted[key]))
    rows = [
        [
            cell.implementation,
            place(cell),
            cell.dtype,
            cell.work,
            prediction.bound,
            percent(prediction.fraction),
            number(seconds * 1e3),
            number(ratio * seconds * 1e3),
            number(ratio),
        ]
        for ratio, cell, seconds, prediction in sorted(
            compared, key=lambda x: (-x[0], x[1].implementation)
        )
    ]
    headers = ["implementation", "shape", "dtype", "work", "predicted bound"]
    numbers = ["predicted share of copy bandwidth", "predicted, ms", "measured, ms", "ratio"]
    return table([*headers, *numbers], rows, text_columns=len(headers)) if rows else ""

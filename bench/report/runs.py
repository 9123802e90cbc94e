"""A run is a table: a row for each measurement, and for each cell that was left out, with the reason.

It is read from pytest-benchmark's JSON, as the suite writes it, or from the CSV that the report keeps of it.
"""

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from bench.cells import BOTH, FORWARD, SIZES
from bench.implementations import IMPLEMENTATIONS

_ORDERS = {"implementation": IMPLEMENTATIONS, "dtype": SIZES, "work": (BOTH, FORWARD)}
_CELL = ["implementation", "n", "k", "batch", "dtype", "work"]
_OF_ALL_PARTS = ("name", "driver", "threads", "versions", "commit")
_MEASURED = ["seconds", "share", "steady", "extra_memory"]


class Run:
    """`about` has name, kind, driver, l2_bytes, threads, versions, commit, date, seed, load_before, others."""

    def __init__(self, about: dict[str, Any], rows: pd.DataFrame) -> None:
        types = {name: pd.CategoricalDtype(list(of), ordered=True) for name, of in _ORDERS.items()}
        rows = rows.reindex(columns=[*_CELL, *_MEASURED, "why"])
        rows = rows.astype(types | {"extra_memory": "Int64"}).sort_values(_CELL, ignore_index=True)
        self.about, self.rows = about, rows
        self.measured = rows[rows.why.isna()].astype({"steady": bool})
        self.left_out = rows[rows.why.notna()]
        device = re.sub("[^a-z0-9]+", "-", about["name"].lower()).strip("-")
        self.stem = f"benchmark-{device}"  # of the names of its files

    @property
    def has_bandwidth(self) -> bool:
        """A copy of the scores shows the bandwidth of a GPU's memory; those of a CPU may stay in its caches."""
        return self.about["kind"] != "cpu"

    def save(self, path: Path) -> None:
        table = self.rows.to_csv(index=False, float_format="%.7g")
        path.write_text(f"# {json.dumps(self.about)}\n{table}")


def load(*parts: Path) -> Run:
    """The parts of a run were measured one after the other on one machine; its others are those of the busiest part."""
    found = {part: _read(part) for part in parts}
    about, _ = found[parts[0]]
    for part, (other, _) in found.items():
        if any(other.get(name) != about.get(name) for name in _OF_ALL_PARTS):
            raise ValueError(
                f"{part} is no part of the run of {parts[0]}: they differ in "
                f"one of {', '.join(_OF_ALL_PARTS)}"
            )
    known = [other["others"] for other, _ in found.values() if other["others"] is not None]
    rows = pd.concat([rows for _, rows in found.values()])
    return Run(about | {"others": max(known, default=None)}, rows.drop_duplicates(_CELL))


def _read(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    text = path.read_text()
    if path.suffix == ".csv":
        about, table = text.split("\n", 1)
        return json.loads(about.removeprefix("# ")), pd.read_csv(StringIO(table))
    content = json.loads(text)
    rows = content["left_out"] + [
        each["extra_info"] | {"seconds": each["stats"]["median"]}
        for each in content["benchmarks"]
        if each["extra_info"]  # not the host's time of a call
    ]
    return content["machine_info"] | content["run"], pd.DataFrame(rows)

"""The page of sweeps has the table's configuration of each case, then and now, and the fastest that was tried."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.reporting.markdown import number, percent, table
from bench.sweep.variants import CASES, text
from triton_topk.kernels import launch

PAGE = Path(__file__).parents[2] / "reports/sweep.md"
_INTRODUCTION = """\
# Launch configurations

The kernel of a loss alone, forward + backward of the mean, on 2^26 scores: what `python -m bench.sweep` measured, in
turns in CUDA graphs. The table is the one of `triton_topk/kernels/config.py`, at that commit and now. A configuration
is rows x lanes x vectors x blocks of a program, whose scores are kept in registers (r) or read again in each phase (s);
then warps (w), registers a lane at most (r) and programs of a row (p). A share is that of the bandwidth of the fastest
copy of the run in the same type; it is empty where that configuration was not tried."""
_HEADERS = ["case", "table then", "fastest tried", "table now"]
_NUMBERS = ["then, µs", "then", "fastest", "now"]


def of_case(lines: Sequence[dict[str, Any]], copy: float | None = None) -> list[str]:
    """A row of the page.  lines: of one case, the table's first.  copy: bytes a second, else that of these rounds."""
    timed = {line["config"]: line for line in lines if "seconds" in line}
    case, then = lines[0]["case"], lines[0]["config"]
    fastest = min(timed, key=lambda config: timed[config]["seconds"], default="none")
    now = _now(case)

    def share(config: str) -> str:
        if config not in timed:
            return ""
        line = timed[config]
        return percent(line["bytes"] / line["seconds"] / copy if copy else line["share"])

    microseconds = number(timed[then]["seconds"] * 1e6) if then in timed else ""
    return [case, then, fastest, now, microseconds, share(then), share(fastest), share(now)]


def _now(name: str) -> str:
    case = next(case for case in CASES if str(case) == name)
    return text(launch.choose(case.parameters, case.n, case.dtype))


def render(folder: Path) -> str:
    return "\n\n".join([_INTRODUCTION, *map(_section, sorted(folder.glob("sweep-*.jsonl")))]) + "\n"


def _section(file: Path) -> str:
    header, *lines = map(json.loads, file.read_text().splitlines())
    cases = defaultdict(list)
    copies: dict[str, float] = {}  # bytes a second of the fastest, by the type of the scores
    for line in lines:
        cases[line["case"]].append(line)
        if "seconds" in line:
            copy = line["bytes"] / line["seconds"] / line["share"]
            copies[_dtype(line)] = max(copy, copies.get(_dtype(line), 0.0))
    machine = header["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "triton"))
    said = ", ".join(f"{copy / 1e12:.2f} TB/s ({dtype})" for dtype, copy in copies.items())
    rows = [of_case(found, copies.get(_dtype(found[0]))) for found in cases.values()]
    about = f"{header['date']}, {machine['driver']}, {versions}. Copies move {said}."
    return "\n\n".join(
        [
            f"## {machine['name']}, commit {header['commit'][:10]}",
            f"{about} {header.get('note', '')}".strip(),
            table([*_HEADERS, *_NUMBERS], rows, text_columns=len(_HEADERS)),
        ]
    )


def _dtype(line: dict[str, Any]) -> str:
    return next(dtype for dtype in ("bfloat16", "float32") if dtype in line["case"])

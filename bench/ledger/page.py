"""The ledger as a page to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.ledger.entry import PATH, Entry, Ledger, by_case
from bench.model import ISSUE, MEMORY, Device, predict
from bench.results import BOTH

PAGE = PATH.with_suffix(".md")
_SHAPE = ("loss", "n", "k", "type", "work")
_LAUNCH = ("launch", "layout", "registers")


def render(ledger: Ledger, device: Device) -> str:
    entries = list(ledger.entries.values())
    lines = [
        "# The compiled kernels",
        "",
        f"What Triton {ledger.triton} makes of the kernel of every loss, for GPUs that need not be there: "
        "`python -m bench.ledger`. All of it is in [kernels.json](kernels.json), which the tests compare with. Rows "
        "too long for one program are read twice, in parts: one launch makes summaries of them, another finishes the "
        "rows.",
        "",
        "## Spills",
        "",
        "Registers that do not suffice; in every other kernel of the ledger they do.",
        "",
        *_spills(entries),
        "",
        f"## Predicted for an {device.name}",
        "",
        *_assumptions(device),
        "",
        *_predictions((x for x in entries if x.architecture == device.architecture), device),
        "",
        "## The code",
        "",
        "Loss and gradient at once. Layout: rows x lanes x blocks, warps. Loads and stores: how many of so many "
        "bits a lane for global memory. Instructions: in the code, and run for each score of a lane, loops followed "
        "to their ends; what a branch on the scores may skip counts. Special: exponentials, logarithms, "
        "reciprocals. Most instructions a score first.",
        "",
        *_code([x for x in entries if _is_main(x)], device),
    ]
    return "\n".join(lines) + "\n"


def _spills(entries: Iterable[Entry]) -> list[str]:
    spilling = sorted((x for x in entries if x.spills), key=lambda x: -x.spills)
    return _table(
        ("target", *_SHAPE, *_LAUNCH, "spills", "bytes of stack"),
        [(x.architecture, *_shape(x), *_launch(x), x.spills, x.stack) for x in spilling],
    )


def _assumptions(device: Device) -> list[str]:
    units = ", ".join(f"{name} {lanes}" for name, lanes in device.lanes.items() if name != "all")
    return [
        "The time of a score is, for each launch, the longest of",
        "",
        f"- moving its bytes at copy bandwidth, {device.copy_bandwidth / 1e12:.1f} TB/s. A row, or part of "
        "one, that is not kept in registers is read once a pass, unless all that are being worked on fit into a cache: "
        f"those of a multiprocessor into {device.l1 // 1024} KiB of L1, or those of all, with their gradients, into "
        f"{device.l2 / 1e6:.0f} MB of L2. Then it is read once;",
        f"- issuing its instructions: {device.multiprocessors} multiprocessors, {device.lanes['all']} lanes a clock "
        f"each, at {device.clock / 1e9:.2f} GHz;",
        f"- executing those that only one kind of unit can: {units} lanes a clock each. That "
        "rounding to whole numbers needs the special-function unit is an assumption.",
        "",
        "Launches come one after the other. How much L1 leaves to the scores is an assumption, too, not yet measured. "
        "This is a bound from below: latencies, barriers, uneven last programs, hits in a cache and the summaries of "
        "parts are taken to cost nothing. Few resident warps hide little of a latency. The share of copy bandwidth "
        "counts the scores once and the gradient once. What falls shortest comes first.",
    ]


def _predictions(entries: Iterable[Entry], device: Device) -> list[str]:
    rows = []
    for prediction, case in sorted(
        ((predict(x, device), x) for x in by_case(entries).values()),
        key=lambda pair: pair[0].fraction,
    ):
        units = {x: t for x, t in prediction.seconds.items() if x not in (MEMORY, ISSUE)}
        busiest = max(units, key=lambda x: units[x])
        rows.append(
            (
                *_shape(case[0]),
                f"{prediction.fraction:.0%}",
                prediction.bound,
                _picoseconds(prediction.time),
                _picoseconds(prediction.seconds[MEMORY]),
                _picoseconds(prediction.seconds[ISSUE]),
                f"{_picoseconds(units[busiest])} ({busiest})",
                f"{prediction.traffic:g}",
                f"{sum(x.executed['all'] for x in case):.1f}",
                ", ".join(str(x.warps) for x in prediction.launches),
            )
        )
    times = ("ps a score", "memory alone", "issue alone", "busiest unit alone")
    counts = ("bytes a score", "instructions a score", "resident warps")
    return _table((*_SHAPE, "of copy bandwidth", "bound", *times, *counts), rows)


def _code(entries: Iterable[Entry], device: Device) -> list[str]:
    in_order = sorted(
        entries,
        key=lambda x: (x.architecture != device.architecture, x.architecture, -x.executed["all"]),
    )
    rows = [
        (
            *(x.architecture, *_shape(x)[:-1], *_launch(x), x.shared),
            *(_widths(x.loads), _widths(x.stores), x.static["all"]),
            *(f"{x.executed[name]:.{digits}f}" for name, digits in _COUNTS.items()),
        )
        for x in in_order
    ]
    used = (*_LAUNCH, "shared bytes", "loads", "stores", "instructions")
    return _table(("target", *_SHAPE[:-1], *used, "a score", "special", "float64"), rows)


_COUNTS = {"all": 1, "special": 2, "float64": 2}  # digits


def _is_main(entry: Entry) -> bool:
    plain = entry.aligned and entry.order is None and not entry.hits
    usual = plain and entry.dtype in ("float32", "bfloat16")
    return usual and entry.work == BOTH and entry.n in (1000, 131072)


def _shape(entry: Entry) -> tuple[str, ...]:
    n = str(entry.n) if entry.aligned else f"{entry.n}, unaligned"
    k = "" if entry.k is None else str(entry.k)
    return entry.implementation, n, k, entry.dtype, "both" if entry.work == BOTH else entry.work


def _launch(entry: Entry) -> tuple[object, ...]:
    return entry.launch, entry.config, entry.registers


def _widths(accesses: dict[int, int]) -> str:
    return ", ".join(f"{count} x {bits}" for bits, count in accesses.items())


def _picoseconds(seconds: float) -> str:
    return f"{1e12 * seconds:.2f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]

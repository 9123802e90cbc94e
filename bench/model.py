"""The model predicts how long a case takes on an H100 or H200, from the entries of its launches in the ledger.

Each thing that a score needs has a time of its own, as if nothing else took any: moving its bytes at copy bandwidth,
issuing its instructions, and executing those that only one kind of unit can.  The longest is the predicted time of a
launch; those of a case come one after the other.  It is a bound from below: latencies, waiting at barriers, uneven last
programs, hits in L1 and L2 and the summaries of parts are taken to cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.ledger.entry import FINISH, PATH, Entry, by_case, load_ledger

MEMORY = "memory"
ISSUE = "issue"
_WARP = 32


@dataclass(frozen=True)
class Device:
    name: str
    architecture: str
    multiprocessors: int
    clock: float  # Hz
    copy_bandwidth: float  # bytes a second, read and written
    l1: int  # bytes that are found again there, of a multiprocessor
    l2: int  # bytes that are found again there, whichever multiprocessor asks
    lanes: dict[str, int]  # lanes a clock and multiprocessor, by class of instructions
    registers: int  # a quarter of a multiprocessor
    warps: int
    programs: int
    shared: int  # bytes of a multiprocessor


H200 = Device(
    name="H200",
    architecture="sm_90",
    multiprocessors=132,
    # What the kernels were designed for: in the time that 32 float32 scores take to be copied, 55 instructions.
    copy_bandwidth=4.3e12,
    clock=1.75e9,
    # Of 256 KiB together with shared memory; what stores take of it is unknown: an assumption, not yet measured.
    l1=192 * 1024,
    # Half of 50 MB: each half of the chip may keep a copy of its own.
    l2=25_000_000,
    # Results a clock and multiprocessor of compute capability 9.0: CUDA C++ Programming Guide, "Arithmetic
    # Instructions".  That rounding to whole numbers is as slow as a special function is an assumption.
    lanes={
        "all": 128,
        "fma unit": 128,
        "alu": 64,
        "float64": 64,
        "shuffles": 32,
        "special-function unit": 16,
    },
    # The guide's table of technical specifications.
    registers=16_384,
    warps=64,
    programs=32,
    shared=228 * 1024,
)
# The same chip with slower memory.  Copies of a gigabyte moved this much (python -m bench.device), and this was the
# clock while the kernels ran (ncu).
H100 = replace(H200, name="H100 80GB HBM3", copy_bandwidth=3.0e12, clock=1.95e9)
DEVICES = (H100, H200)
_NAMES = {"all": ISSUE}


@dataclass(frozen=True)
class Launch:
    """For one score of a device that is full of work."""

    seconds: dict[str, float]  # by what would take them, if it alone took time
    traffic: float  # bytes from and to memory
    warps: int  # resident on a multiprocessor

    @property
    def time(self) -> float:
        """Seconds."""
        return max(self.seconds.values())

    @property
    def bound(self) -> str:
        """What takes the most time: "memory", "issue" or a unit."""
        return max(self.seconds, key=lambda name: self.seconds[name])


@dataclass(frozen=True)
class Prediction:
    """One launch after the other; seconds and bytes as theirs, for one score."""

    launches: Sequence[Launch] = field(repr=False)
    copy: float  # seconds that the scores read once and the gradient written once take at copy bandwidth

    @property
    def time(self) -> float:
        """Seconds."""
        return sum(x.time for x in self.launches)

    @property
    def bound(self) -> str:
        """That of the launch that takes longest."""
        return max(self.launches, key=lambda x: x.time).bound

    @property
    def fraction(self) -> float:
        """Of copy bandwidth."""
        return self.copy / self.time

    @property
    def traffic(self) -> float:
        return sum(x.traffic for x in self.launches)

    @property
    def seconds(self) -> dict[str, float]:
        return {
            name: sum(x.seconds[name] for x in self.launches) for name in self.launches[0].seconds
        }


def predict(case: Sequence[Entry], device: Device = H200) -> Prediction:
    """Of a case, from all its launches."""
    least = case[0].size * (1 + any(x.writes_gradient for x in case))
    return Prediction([_launch(x, device) for x in case], least / device.copy_bandwidth)


def _launch(entry: Entry, device: Device) -> Launch:
    if entry.architecture != device.architecture:
        raise ValueError(f"{entry.architecture} is not {device.architecture}")
    traffic = entry.size * (reads(entry, device) + entry.writes_gradient)
    seconds = {MEMORY: traffic / device.copy_bandwidth} | {
        _NAMES.get(name, name): entry.executed[name]
        / (device.multiprocessors * lanes * device.clock)
        for name, lanes in device.lanes.items()
    }
    return Launch(seconds, traffic, resident_warps(entry, device))


def passes(entry: Entry) -> int:
    """How often the launch reads a score; see docs/algorithm.md, "Kernels"."""
    if entry.launch == FINISH:
        return int(entry.writes_gradient)
    return 2 + entry.writes_gradient if entry.config.stream else 1


def reads(entry: Entry, device: Device = H200) -> int:
    """How often a score comes from memory: once a pass, or once where a cache holds what is being worked on.

    That is L1 for the scores of the programs of a multiprocessor, and L2 for those of all and their gradients.
    """
    config = entry.config
    programs = resident_warps(entry, device) // config.warps
    held = programs * config.rows * entry.n * entry.size / config.parts
    in_l1 = held <= device.l1
    in_l2 = device.multiprocessors * held * (1 + entry.writes_gradient) <= device.l2
    return min(passes(entry), 1) if in_l1 or in_l2 else passes(entry)


def resident_warps(entry: Entry, device: Device = H200) -> int:
    """Warps that a multiprocessor holds at a time, of as many programs as its registers and shared memory allow."""
    warps = entry.config.warps
    # registers are given to a warp by eights a lane, of the quarter that it runs on
    of_a_warp = _WARP * _round_up(entry.registers, 8)
    of_registers = 4 * (device.registers // of_a_warp) // warps
    of_shared = device.shared // _round_up(entry.shared + 1024, 128)  # 1024 are the system's
    return warps * min(of_registers, of_shared, device.programs, device.warps // warps)


def predictions(
    path: Path = PATH, device: Device = H200
) -> dict[tuple[str, int, int | None, str, str], Prediction]:
    """By (implementation, n, k, dtype, work), as the benchmark suite names them; of rows as they come."""
    wanted = (
        entry
        for entry in load_ledger(path).entries.values()
        if entry.architecture == device.architecture and entry.aligned
    )
    return {
        (case[0].implementation, case[0].n, case[0].k, case[0].dtype, case[0].work): predict(
            case, device
        )
        for case in by_case(wanted).values()
    }


def _round_up(x: int, to: int) -> int:
    return -(-x // to) * to

"""What a kernel promises, and what makes it worse than the ledger says."""

from __future__ import annotations

from collections.abc import Iterator

from bench.ledger.entry import FINISH, Entry
from bench.machine_code.opcodes import is_nvidia
from bench.model import H200, passes, resident_warps

_WIDE = 128
_MORE = 1.1  # as many instructions as before, at most
REGENERATE = "if this is wanted: python -m bench.ledger --out reports"


def broken_promises(entry: Entry) -> list[str]:
    """What a kernel must keep whatever the ledger says.

    It can be launched, nothing is spilled, and aligned rows move in 128 bits a lane.
    """
    broken = []
    if is_nvidia(entry.architecture) and resident_warps(entry, H200) == 0:
        broken.append(f"{entry.name}: {entry.registers} registers do not fit a multiprocessor")
    if entry.spills or entry.stack:
        broken.append(f"{entry.name} spills: {entry.spills}, stack: {entry.stack} bytes")
    of_a_pass = _wide_accesses(entry)
    for kind, widths, least in (
        ("loads", entry.loads, passes(entry) * of_a_pass),
        ("stores", entry.stores, entry.writes_gradient * of_a_pass),
    ):
        found = _at_least(widths, _WIDE)
        if found < least:
            broken.append(
                f"{entry.name}: {found} {kind} of 128 bits, {least} at least are expected"
            )
    return broken


def _wide_accesses(entry: Entry) -> int:
    """Accesses of 128 bits that the whole blocks of a row, or of a part, need in a pass; a loop has one block's."""
    if not entry.aligned or entry.n * entry.size % 16:
        return 0
    config = entry.config
    bits = 8 * entry.size * config.rows * config.lanes // (entry.warp * config.warps)
    in_loops = config.stream or entry.launch == FINISH
    blocks = 1 if in_loops else entry.n // config.columns // config.parts
    return blocks * config.vectors * (bits // _WIDE)


def regressions(before: Entry, after: Entry) -> list[str]:
    """In what a kernel is worse than it was, or another one."""
    return [
        f"{after.name}: {what} was {was}, is {now}; {REGENERATE}"
        for what, was, now in _regressions(before, after)
    ]


def _regressions(before: Entry, after: Entry) -> Iterator[tuple[str, object, object]]:
    if after.config != before.config:
        yield "layout", before.config, after.config
    for kind, old, new in (
        ("loads", before.loads, after.loads),
        ("stores", before.stores, after.stores),
    ):
        if max(new, default=0) < max(old, default=0):
            yield f"widest of the {kind} in bits", max(old), max(new, default=0)
        if _at_least(new, _WIDE) < _at_least(old, _WIDE):
            yield f"{kind} of 128 bits", _at_least(old, _WIDE), _at_least(new, _WIDE)
    numbers: tuple[tuple[str, float, float, float], ...] = (
        ("spills", 1, before.spills, after.spills),
        ("bytes of stack", 1, before.stack, after.stack),
        ("instructions", _MORE, before.static["all"], after.static["all"]),
        ("instructions run a score", _MORE, before.executed["all"], after.executed["all"]),
    )
    for what, factor, was, now in numbers:
        if now > factor * was:
            yield what, was, now


def _at_least(widths: dict[int, int], bits: int) -> int:
    return sum(count for width, count in widths.items() if width >= bits)

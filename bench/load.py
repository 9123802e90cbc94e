"""Load tells how busy the machine is with other things."""

from __future__ import annotations

import os
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)  # among its columns; waiting for a disk, too
_COUNTED = slice(8)  # what follows is counted there already


class Load:
    """The load that the machine had before, and what all but this process and its children have used since."""

    def __init__(self) -> None:
        self.before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._start = _seconds()

    def others(self) -> float | None:
        """Their share of the time of all CPUs; None where the system does not say."""
        if self._start is None:
            return None
        total, busy, own = (now - start for now, start in zip(_seconds(), self._start, strict=True))
        return max(0.0, busy - own) / total if total else None  # some sandboxes count nothing


def _seconds() -> tuple[float, float, float] | None:
    """Seconds of all CPUs: in all, busy, and used by this process and those of its children that have ended."""
    if not _STAT.exists():
        return None
    ticks = [int(x) for x in _STAT.read_text().split("\n", 1)[0].split()[1:]][_COUNTED]
    total, busy = (
        x / os.sysconf("SC_CLK_TCK") for x in (sum(ticks), sum(ticks) - sum(ticks[_IDLE]))
    )
    return total, busy, sum(os.times()[:4])

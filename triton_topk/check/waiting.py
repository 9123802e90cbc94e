"""A process knows how long it has waited for a CPU that was busy with something else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def waiting() -> float:
    """Return the seconds that its threads were ready to run without a CPU; 0 where the system does not say."""
    nanoseconds = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has ended
            nanoseconds += int(file.read_text().split()[1])
    return 1e-9 * nanoseconds

"""Memory with a record, for each byte, of who may use it and who did: faults are raised where they happen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.ptx.arithmetic import Array

_ALIGNMENT = 512
_NOBODY = -1


class Fault(Exception):  # noqa: N818 (the kernel's, not the emulator's)
    """A kernel did what it must not do."""


class Race(Fault):
    """Two threads used a byte, one of them to write another value, and nothing says which of them came first."""


@dataclass
class Threads:
    """The threads of an access, and the times before which others of their programs, and of their warps, were done."""

    numbers: Array  # of all threads of all programs, ascending
    per_program: int
    barrier: Array
    warp_barrier: Array

    def after(self, others: Array, times: Array) -> Array:
        """The result says whether accesses of others at these times come before, as do the thread's and nobody's."""
        me = self.numbers[:, None]
        same_program = others // self.per_program == me // self.per_program
        same_warp = others // 32 == me // 32
        return (
            (others == me)
            | (others == _NOBODY)
            | (same_program & (times < self.barrier[:, None]))
            | (same_warp & (times < self.warp_barrier[:, None]))
        )


class _Users:
    """The last users of each byte, none of them ordered before another: the first and the last of a range of threads.

    Threads of a warp, and of a program, are neighbours, so that where all of a range come before a thread is known
    from its ends.
    """

    def __init__(self, size: int) -> None:
        self._ends = np.full((2, size), _NOBODY)
        self._time = np.zeros(size, np.int64)

    def before(self, places: Array, threads: Threads) -> Array:
        return np.all([threads.after(end[places], self._time[places]) for end in self._ends], 0)

    def add(self, places: Array, threads: Threads, now: int) -> None:
        me, forgotten = threads.numbers[:, None], self.before(places, threads)
        for end, outer in zip(self._ends, (np.minimum, np.maximum), strict=True):
            wider = np.where(forgotten, me, outer(end[places], me))
            # several threads of an access may use one byte
            end[places] = wider
            outer.at(end, places, wider)
        self._time[places] = now


class Memory:
    def __init__(self, sizes: list[int]) -> None:
        """Room for allocations of these sizes, each as far from the next as the largest is long."""
        self._gap = max(sizes, default=0) + _ALIGNMENT
        size = sum(sizes) + (len(sizes) + 1) * (self._gap + 2 * _ALIGNMENT)
        self.bytes = np.full(size, 0xFF, np.uint8)
        self.readable, self.writable, self.written = np.zeros((3, size), bool)
        self._readers, self._writers = _Users(size), _Users(size)
        self._top = 0

    def allocate(self, data: Array, offset: int = 0, allowed: bool = False) -> slice:
        """A place, `offset` bytes after a multiple of 512; allowed: whether everybody may go there."""
        start = -(-(self._top + self._gap) // _ALIGNMENT) * _ALIGNMENT + offset
        place = slice(start, start + len(data))
        self.bytes[place] = data
        self.readable[place] = self.writable[place] = allowed
        self._top = place.stop
        return place

    def load(self, addresses: Array, size: int, threads: Threads, now: int) -> Array:
        """[thread, byte]"""
        places = self._places(addresses, size, self.readable)
        if not self.written[places].all():
            raise Fault("reads what nobody has written")
        if not self._writers.before(places, threads).all():
            raise Race("reads what another thread writes")
        self._readers.add(places, threads, now)
        return self.bytes[places]

    def store(self, addresses: Array, data: Array, threads: Threads, now: int) -> None:
        """data: [thread, byte]"""
        places = self._places(addresses, data.shape[1], self.writable)
        if not self._readers.before(places, threads).all():
            raise Race("writes what another thread reads")
        if not (self._writers.before(places, threads) | (self.bytes[places] == data)).all():
            raise Race("writes another value than another thread")
        self.bytes[places] = data
        if not (self.bytes[places] == data).all():
            raise Race("threads write different values to one address at once")
        self.written[places] = True
        self._writers.add(places, threads, now)

    def _places(self, addresses: Array, size: int, allowed: Array) -> Array:
        if (addresses % size).any():
            raise Fault(f"address that is no multiple of {size}")
        places = addresses[:, None] + np.arange(size)
        inside = (places >= 0) & (places < len(allowed))
        if not inside.all() or not allowed[places].all():
            raise Fault("out of bounds")
        return places

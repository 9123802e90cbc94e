"""Memory with a record, for each byte, of who may use it and who did: faults are raised where they happen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.ptx.arithmetic import Array

GAP = 512  # bytes between allocations, to which nobody may go; their alignment
_NOBODY = -1


class Fault(Exception):  # noqa: N818 (the kernel's, not the emulator's)
    """A kernel did what it must not do."""


class Race(Fault):
    """Two threads used a byte, one of them to write another value, and nothing says which of them came first."""


@dataclass
class Threads:
    """The threads of an access, and the times before which others of their programs, and of their warps, were done."""

    numbers: Array  # of all threads of all programs
    per_program: int
    barrier: Array
    warp_barrier: Array

    def after(self, others: Array, times: Array) -> Array:
        """Whether what others did at these times is ordered before, as is what a thread did itself, and nobody."""
        me = self.numbers[:, None]
        same_program = others // self.per_program == me // self.per_program
        same_warp = others // 32 == me // 32
        return (
            (others == me)
            | (others == _NOBODY)
            | (same_program & (times < self.barrier[:, None]))
            | (same_warp & (times < self.warp_barrier[:, None]))
        )


class Memory:
    def __init__(self, size: int) -> None:
        self.bytes = np.full(size, 0xFF, np.uint8)
        self.readable = np.zeros(size, bool)  # part of an allocation
        self.writable = np.zeros(size, bool)
        self.written = np.zeros(size, bool)
        self._top = 0
        self._writer = np.full(size, _NOBODY)
        self._write_time = np.zeros(size, np.int64)
        # of the threads that read since their last order the ends of the range that holds them all
        self._lowest = np.full(size, _NOBODY)
        self._highest = np.full(size, _NOBODY)
        self._read_time = np.zeros(size, np.int64)

    def allocate(self, data: Array, written: Array | bool, writable: bool, offset: int = 0) -> int:
        """The address, `offset` bytes after a multiple of 512."""
        start = -(-self._top // GAP) * GAP + GAP + offset
        place = slice(start, start + len(data))
        self.bytes[place], self.written[place] = data, written
        self.readable[place], self.writable[place] = True, writable
        self._top = place.stop
        return start

    def load(self, addresses: Array, size: int, threads: Threads, now: int) -> Array:
        """[thread, byte]"""
        places = self._places(addresses, size, self.readable)
        if not self.written[places].all():
            raise Fault("reads what nobody has written")
        if not threads.after(self._writer[places], self._write_time[places]).all():
            raise Race("reads what another thread writes")
        me = threads.numbers[:, None]
        ends = self._lowest[places], self._highest[places]
        forgotten = np.all([threads.after(x, self._read_time[places]) for x in ends], axis=0)
        lowest = np.where(forgotten, me, np.minimum(ends[0], me))
        highest = np.where(forgotten, me, np.maximum(ends[1], me))
        # of the threads of this access, which ascend, the last assignment to a byte stays
        self._lowest[places[::-1]] = lowest[::-1]
        self._highest[places] = highest
        self._read_time[places] = now
        return self.bytes[places]

    def store(self, addresses: Array, data: Array, threads: Threads, now: int) -> None:
        """data: [thread, byte]"""
        places = self._places(addresses, data.shape[1], self.writable)
        for reader in (self._lowest[places], self._highest[places]):
            if not threads.after(reader, self._read_time[places]).all():
                raise Race("writes what another thread reads")
        ordered = threads.after(self._writer[places], self._write_time[places])
        if not (ordered | (self.bytes[places] == data)).all():
            raise Race("writes another value than another thread")
        self.bytes[places] = data
        if not (self.bytes[places] == data).all():
            raise Race("threads write different values to one address at once")
        self.written[places] = True
        self._writer[places] = threads.numbers[:, None]
        self._write_time[places] = now

    def _places(self, addresses: Array, size: int, allowed: Array) -> Array:
        if (addresses % size).any():
            raise Fault(f"address that is no multiple of {size}")
        places = addresses[:, None] + np.arange(size)
        inside = (places >= 0) & (places < len(allowed))
        if not inside.all() or not allowed[places].all():
            raise Fault("out of bounds")
        return places

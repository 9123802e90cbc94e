"""The emulator's record of who used a byte, against a list of all that was done to it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.ptx.memory import Memory, Race, Threads

PER_PROGRAM = 64
THREADS = (0, 1, 31, 32, 63, 64, 95, 96, 160)  # of six warps, in three programs


class History:
    """A history holds the accesses to one byte, and which of them come before what a thread does now."""

    def __init__(self) -> None:
        self.now = 1
        self.barrier = dict.fromkeys(THREADS, 0)
        self.warp_barrier = dict.fromkeys(THREADS, 0)
        self.done: list[tuple[int, int, int | None]] = []  # thread, time, what it wrote

    def synchronise(self, threads: int, of_warp: bool) -> None:
        self.now += 1
        for thread in THREADS:
            if thread // (32 if of_warp else PER_PROGRAM) == threads:
                self.warp_barrier[thread] = self.now
                if not of_warp:
                    self.barrier[thread] = self.now

    def _ordered(self, other: int, time: int, thread: int) -> bool:
        program = other // PER_PROGRAM == thread // PER_PROGRAM
        warp = other // 32 == thread // 32
        by_barrier = program and time < self.barrier[thread]
        return other == thread or by_barrier or (warp and time < self.warp_barrier[thread])

    def races(self, thread: int, value: int | None) -> bool:
        return any(
            not self._ordered(other, time, thread) and value != before
            for other, time, before in self.done
            if value is not None or before is not None
        )

    def add(self, numbers: list[int], value: int | None) -> None:
        if value is not None:
            # what is overwritten for certain does not stay, whatever else comes
            self.done = [
                (other, time, before)
                for other, time, before in self.done
                if before is None or not any(self._ordered(other, time, x) for x in numbers)
            ]
        self.done += [(thread, self.now, value) for thread in numbers]


@pytest.mark.parametrize("seed", range(10))
def test_races_are_those_of_the_whole_history(seed):
    choose = random.Random(seed)
    found = [one_history_ends_in_a_race(choose) for _ in range(200)]
    assert 20 < sum(found) < 180  # both kinds were seen


def one_history_ends_in_a_race(choose: random.Random) -> bool:
    memory, history = Memory([1]), History()
    place = memory.allocate(np.zeros(1, np.uint8), allowed=True)
    memory.written[place] = True
    for _ in range(choose.randint(2, 9)):
        if choose.random() < 0.4:
            of_warp = choose.random() < 0.5
            history.synchronise(choose.randrange(6 if of_warp else 3), of_warp)
            continue
        numbers = sorted(choose.sample(THREADS, choose.choice([1, 1, 2, 3])))
        value = choose.choice([None, 5, 7])
        expected = any(history.races(thread, value) for thread in numbers)
        history.add(numbers, value)
        threads = Threads(
            np.array(numbers),
            PER_PROGRAM,
            np.array([history.barrier[thread] for thread in numbers]),
            np.array([history.warp_barrier[thread] for thread in numbers]),
        )
        addresses = np.full(len(numbers), place.start)
        try:
            if value is None:
                memory.load(addresses, 1, threads, history.now)
            else:
                data = np.full((len(numbers), 1), value, np.uint8)
                memory.store(addresses, data, threads, history.now)
        except Race:
            assert expected
            return True
        assert not expected
    return False

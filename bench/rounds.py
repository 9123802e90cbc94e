"""Rounds in which contestants take turns: what slows the machine down for a while slows all of them.

Where one of them was disturbed, all are measured again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_benchmark.stats import Stats

from bench.results import is_steady

TRIES = 3
_PATIENCE = 10.0  # seconds, after which no further try begins, and hardly a round
_ROUNDS = 5
_FEWEST_ROUNDS = 3  # where the patience is at an end
_SECONDS = 0.02  # of a contestant in a round
_MOST_CALLS = 20  # in a round

Clock = Callable[[], float]
Stopwatch = Callable[[Callable[[], object]], float]
"""The seconds of a call."""


def host_stopwatch(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Contestant:
    call: Callable[[], object]  # what is timed
    steps: int  # that a call makes
    before: Callable[[], object] = lambda: None  # what is not, before every call


@dataclass
class Timing:
    stats: Stats = field(default_factory=Stats)  # of the seconds of a step
    waits: list[float] = field(default_factory=list)  # of a call, over its time
    share: float = 0.0  # of the bandwidth of the copy
    copy_steady: bool = True

    @property
    def waited(self) -> float:
        return statistics.median(self.waits)

    @property
    def steady(self) -> bool:
        spread = self.stats.iqr / self.stats.median
        return is_steady(spread, self.share, self.waited) and self.copy_steady


class TurnError(Exception):
    """An error that one of the contestants made in its turn."""

    def __init__(self, whose: Contestant, why: Exception) -> None:
        super().__init__(str(why))
        self.whose, self.why = whose, why


def measure(
    contestants: Sequence[Contestant],
    copy: Contestant,
    traffic: float,
    stopwatch: Stopwatch,
    waiting: Clock,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """The steadiest of up to TRIES tries.

    A step moves `traffic` times the bytes of the copy.  `waiting` is the time that the process has waited for a CPU.
    The clock tells when patience is at an end.
    """
    tries: list[list[Timing]] = []
    start = clock()
    while not tries or (len(tries) < TRIES and clock() < start + _PATIENCE):
        *found, copied = _take_turns([*contestants, copy], stopwatch, waiting, clock)
        for timing in found:
            timing.share = traffic * copied.stats.median / timing.stats.median
            timing.copy_steady = copied.steady
        tries.append(found)
        if all(timing.steady for timing in found):
            break
    return min(tries, key=lambda timings: sum(not timing.steady for timing in timings))


def _take_turns(
    contestants: Sequence[Contestant], stopwatch: Stopwatch, waiting: Clock, clock: Clock
) -> list[Timing]:
    """As many calls of a contestant in each round as there was time for in the first, so that a slow round has as much
    weight for the short calls of one as for the long calls of another."""
    found = [Timing() for _ in contestants]
    calls = [_MOST_CALLS] * len(found)
    start = clock()
    for of_round in range(_ROUNDS):
        if of_round >= _FEWEST_ROUNDS and clock() > start + _PATIENCE:
            break
        for i, (contestant, timing) in enumerate(zip(contestants, found, strict=True)):
            end = clock() + _SECONDS
            for call in range(1, calls[i] + 1):
                _time(contestant, timing, stopwatch, waiting)
                if of_round == 0 and clock() > end:
                    calls[i] = call
                    break
    return found


def _time(contestant: Contestant, timing: Timing, stopwatch: Stopwatch, waiting: Clock) -> None:
    """Time one call."""
    try:
        contestant.before()
        waited = waiting()
        seconds = stopwatch(contestant.call)
    except Exception as error:
        raise TurnError(contestant, error) from error
    timing.stats.update(seconds / contestant.steps)
    timing.waits.append((waiting() - waited) / seconds)

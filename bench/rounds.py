"""Contestants take turns in rounds, so that what slows the machine for a while slows all of them.

Where one of them was disturbed, all are measured again.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_benchmark.stats import Stats

from triton_topk.check.waiting import waiting

TRIES = 3
# A pass over the scores may move their bytes a little faster than a copy does.
MOST_SPREAD, MOST_SHARE, MOST_WAITED = 0.3, 1.05, 0.1
_PATIENCE = 10.0  # seconds, after which no further try begins, nor a round but for the fewest
_ROUNDS, _FEWEST_ROUNDS = 5, 3
_SECONDS, _MOST_CALLS = 0.02, 20  # of a contestant in a round

Clock = Callable[[], float]


class Timer:
    """The host's clock times a call."""

    waiting = staticmethod(waiting)

    def stopwatch(self, call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Contestant:
    call: Callable[[], object]
    steps: int  # that a call makes


@dataclass
class Timing:
    stats: Stats = field(default_factory=Stats)  # of the seconds of a step
    waits: list[float] = field(default_factory=list)  # of a call for a CPU, over its time
    share: float = 0.0  # of the bandwidth of the copy
    copy_steady: bool = True

    @property
    def steady(self) -> bool:
        """A timing is unsteady if the machine was busy with something else."""
        return (
            self.stats.iqr <= MOST_SPREAD * self.stats.median
            and self.share <= MOST_SHARE
            and statistics.median(self.waits) <= MOST_WAITED
            and self.copy_steady
        )


def measure(
    contestants: Sequence[Contestant],
    copy: Contestant,
    traffic: float,
    timer: Timer,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """The steadiest of up to TRIES tries is returned.

    A step moves `traffic` times the bytes of the copy.  The clock tells when patience is at an end.
    """
    tries: list[list[Timing]] = []
    start = clock()
    while not tries or (len(tries) < TRIES and clock() < start + _PATIENCE):
        *found, copied = _take_turns([*contestants, copy], timer, clock)
        for timing in found:
            timing.share = traffic * copied.stats.median / timing.stats.median
            timing.copy_steady = copied.steady
        tries.append(found)
        if all(timing.steady for timing in found):
            break
    return min(tries, key=lambda timings: sum(not timing.steady for timing in timings))


def _take_turns(contestants: Sequence[Contestant], timer: Timer, clock: Clock) -> list[Timing]:
    """A contestant makes as many calls in each round as there was time for in the first: a slow round has as much
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
                waited = timer.waiting()
                seconds = timer.stopwatch(contestant.call)
                timing.waits.append((timer.waiting() - waited) / seconds)
                timing.stats.update(seconds / contestant.steps)
                if of_round == 0 and clock() > end:
                    calls[i] = call
                    break
    return found

"""Rounds in which contestants take turns: what slows the machine down for a while slows all of them.

Where the times of one are scattered, or it moved its bytes faster than a copy can, all are measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_benchmark.stats import Stats

from bench.results import is_steady

TRIES = 3
_ROUNDS = 5
_SECONDS = 0.02  # of a contestant in a round
_MOST_CALLS = 20  # in a round

Clock = Callable[[], float]


@dataclass(frozen=True)
class Contestant:
    call: Callable[[], object]  # what is timed
    steps: int  # that a call makes
    before: Callable[[], object] = lambda: None  # what is not, before every call


@dataclass(frozen=True)
class Timing:
    stats: Stats  # of the seconds of a step
    share: float  # of the bandwidth of the copy

    @property
    def steady(self) -> bool:
        return is_steady(self.stats.iqr / self.stats.median, self.share)


def measure(
    contestants: Sequence[Contestant], copy: Contestant, traffic: float, clock: Clock
) -> list[Timing]:
    """The steadiest of up to TRIES tries.  A step moves `traffic` times the bytes of the copy."""
    tries = []
    for _ in range(TRIES):
        *found, copied = _take_turns([*contestants, copy], clock)
        tries.append([Timing(own, traffic * copied.median / own.median) for own in found])
        if all(timing.steady for timing in tries[-1]):
            break
    return min(tries, key=lambda timings: sum(not timing.steady for timing in timings))


def _take_turns(contestants: Sequence[Contestant], clock: Clock) -> list[Stats]:
    found = [Stats() for _ in contestants]
    for _ in range(_ROUNDS):
        for contestant, stats in zip(contestants, found, strict=True):
            end = clock() + _SECONDS
            for _ in range(_MOST_CALLS):
                contestant.before()
                start = clock()
                contestant.call()
                now = clock()
                stats.update((now - start) / contestant.steps)
                if now > end:
                    break
    return found

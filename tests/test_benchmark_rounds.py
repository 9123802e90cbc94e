"""Contestants take turns, by a clock of the test, and what a busy machine did to them is measured again or marked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import machine as machine_of_the_run
from bench.machine import Load
from bench.rounds import _FEWEST_ROUNDS, _ROUNDS, TRIES, Contestant, Timing, measure
from triton_topk.check.waiting import waiting

Slowness = Callable[[int], float]
"""It is a factor for each call of a contestant, which fills a turn if it is of more than 0.02 seconds."""


def in_rounds(*slow: int, factor: float = 15.0) -> Slowness:
    return lambda turn: factor if turn % _ROUNDS in slow else 1.0


class Machine:
    """Time passes only in what contestants do."""

    def __init__(self) -> None:
        self.now = self.waited = 0.0
        self.order: list[str] = []

    def clock(self) -> float:
        return self.now

    def stopwatch(self, call: Callable[[], object]) -> float:
        before = self.now
        call()
        return self.now - before

    def waiting(self) -> float:
        return self.waited

    def contestant(
        self, name: str, seconds: float, slowness: Slowness = lambda turn: 1.0, waits: float = 0.0
    ) -> Contestant:
        def call() -> None:
            self.now += seconds * slowness(self.order.count(name))
            self.waited += waits
            self.order.append(name)

        return Contestant(call, 1)

    def measure(
        self, *contestants: Contestant, copy: float = 0.025, traffic: float = 1.0
    ) -> list[Timing]:
        return measure(contestants, self.contestant("copy", copy), traffic, self, self.clock)


def test_contestants_take_turns():
    machine = Machine()
    a, b = machine.contestant("a", 0.03), machine.contestant("b", 0.05)
    found = machine.measure(a, b, copy=0.024)
    assert machine.order == ["a", "b", "copy"] * _ROUNDS
    assert [timing.stats.median for timing in found] == pytest.approx([0.03, 0.05])
    assert [timing.share for timing in found] == pytest.approx([0.8, 0.48])


def test_short_and_long_calls_are_slowed_alike():
    """Most rounds are slow, of which a short call has many times and a long one few."""
    machine = Machine()
    rounds = {"short": -1, "long": -1}

    def contestant(name: str, seconds: float) -> Contestant:
        def call() -> None:
            rounds[name] += not machine.order or machine.order[-1] != name
            machine.now += seconds * (30 if rounds[name] % _ROUNDS in (1, 2, 3) else 1)
            machine.order.append(name)

        return Contestant(call, 1)

    found = machine.measure(contestant("short", 1e-3), contestant("long", 0.03))
    assert found[1].stats.median / found[0].stats.median == pytest.approx(30)


def test_a_short_call_is_timed_often_and_for_a_step():
    machine = Machine()
    (timing,) = machine.measure(Contestant(machine.contestant("a", 4e-3).call, 4), copy=1e-3)
    assert len(timing.stats.data) > 4 * _ROUNDS
    assert timing.stats.median == pytest.approx(1e-3)


def test_a_try_that_was_disturbed_is_repeated():
    machine = Machine()
    once = machine.contestant("a", 0.03, lambda turn: 15.0 if turn in (1, 2) else 1.0)
    found = machine.measure(once, machine.contestant("b", 0.03))
    assert machine.order.count("a") == machine.order.count("b") == 2 * _ROUNDS
    assert all(timing.steady for timing in found)
    assert [timing.stats.median for timing in found] == pytest.approx([0.03, 0.03])


def test_what_stays_unsteady_is_said_to_be():
    machine = Machine()
    disturbed = machine.contestant("disturbed", 0.03, in_rounds(1, 2))
    found = machine.measure(machine.contestant("calm", 0.03), disturbed)
    assert machine.order.count("disturbed") == TRIES * _ROUNDS
    assert [timing.steady for timing in found] == [True, False]


def test_beside_a_disturbed_copy_nothing_is_steady():
    machine = Machine()
    copy = machine.contestant("copy", 0.03, in_rounds(1, 2))
    (timing,) = measure([machine.contestant("calm", 0.03)], copy, 0.5, machine, machine.clock)
    assert machine.order.count("calm") == TRIES * _ROUNDS
    assert not timing.steady


def test_the_steadiest_try_is_kept():
    """One is disturbed in the first try, both in the others."""
    machine = Machine()
    later = machine.contestant("a", 0.03, lambda t: in_rounds(1, 2)(t) if t >= _ROUNDS else 1.0)
    found = machine.measure(later, machine.contestant("b", 0.03, in_rounds(1, 2)))
    assert [timing.steady for timing in found] == [True, False]


@pytest.mark.parametrize(("traffic", "share", "steady"), [(1.0, 5 / 3, False), (0.5, 5 / 6, True)])
def test_nothing_is_faster_than_a_copy_of_as_many_bytes(traffic, share, steady):
    machine = Machine()
    (timing,) = machine.measure(machine.contestant("fast", 0.03), copy=0.05, traffic=traffic)
    assert timing.share == pytest.approx(share)
    assert timing.steady == steady


def test_what_takes_long_is_not_tried_again():
    machine = Machine()
    (timing,) = machine.measure(machine.contestant("slow", 2.0, in_rounds(1, 2, factor=2.0)))
    assert machine.order.count("slow") == _FEWEST_ROUNDS
    assert not timing.steady


def test_what_always_waits_for_a_cpu_is_not_steady():
    machine = Machine()
    alone, delayed = machine.contestant("a", 0.03), machine.contestant("b", 0.3, waits=0.04)
    assert [timing.steady for timing in machine.measure(alone, delayed)] == [True, False]


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this system does not count it"
)
def test_threads_in_line_for_a_cpu_are_waiting():
    """Two processes, of which this is one, share a CPU."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        start, waited = time.perf_counter(), waiting()
        while time.perf_counter() < start + 0.5:
            pass
    finally:
        os.sched_setaffinity(0, cpus)
        other.kill()
        other.wait()
    assert waiting() - waited > 0.05


def test_load_of_others(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    monkeypatch.setattr(machine_of_the_run, "_STAT", stat)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    monkeypatch.setattr(os, "times", lambda: (1.0, 1.0, 0.5, 0.5, 99.0))
    # user nice system idle iowait irq softirq steal guest
    stat.write_text("cpu  100 0 0 100 0 0 0 0 0\ncpu0 1 1\n")
    load = Load()
    assert load.before == 1.5
    assert load.others() is None  # no time has passed, as in a sandbox that counts none
    # 8 seconds of CPU time, 6 of them busy, 2 of these with this process
    stat.write_text("cpu  500 0 100 250 50 0 0 100 300\ncpu0 1 1\n")
    monkeypatch.setattr(os, "times", lambda: (2.0, 1.5, 0.5, 1.0, 99.0))
    assert load.others() == pytest.approx(4 / 8)
    stat.unlink()  # as where the system does not say
    assert Load().others() is None

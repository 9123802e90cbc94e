"""Contestants take turns, by a clock of the test, and what a busy machine did to them is measured again or marked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import load
from bench.load import Load
from bench.rounds import _ROUNDS, TRIES, Contestant, Timing, measure
from triton_topk.check.waiting import waiting

Slowness = Callable[[int], float]
"""A factor, for each round of all tries."""


class Machine:
    """Time passes only in what contestants do; one call of more than 0.02 seconds fills a turn."""

    def __init__(self, slowness: Slowness = lambda turn: 1.0) -> None:
        self.now = self.waited = 0.0
        self.order: list[str] = []
        self.slowness = slowness

    def clock(self) -> float:
        return self.now

    def stopwatch(self, call: Callable[[], object]) -> float:
        before = self.now
        call()
        return self.now - before

    def waiting(self) -> float:
        return self.waited

    def contestant(self, name: str, seconds: float, steps: int = 1) -> Contestant:
        def call() -> None:
            self.now += steps * seconds * self.slowness(self.order.count(name))
            self.order.append(name)

        return Contestant(call, steps)

    def measure(
        self, *contestants: Contestant, copy: float | Contestant = 0.025, traffic: float = 1.0
    ) -> list[Timing]:
        """`copy`: its seconds, or what is timed."""
        if not isinstance(copy, Contestant):
            copy = self.contestant("copy", copy)
        return measure(contestants, copy, traffic, self.stopwatch, self.waiting, self.clock)


def test_contestants_take_turns():
    machine = Machine()
    a, b = machine.contestant("a", 0.03), machine.contestant("b", 0.05)
    found = machine.measure(a, b, copy=0.024)

    assert machine.order == ["a", "b", "copy"] * _ROUNDS
    assert [timing.stats.median for timing in found] == pytest.approx([0.03, 0.05])
    assert [timing.share for timing in found] == pytest.approx([0.8, 0.48])


def test_what_slows_the_machine_for_a_while_slows_all():
    machine = Machine(lambda turn: 10.0 if turn % _ROUNDS < 2 else 1.0)
    a, b = machine.contestant("a", 0.03), machine.contestant("b", 0.06)
    found = machine.measure(a, b, copy=0.024)

    assert found[1].stats.median / found[0].stats.median == pytest.approx(2)
    assert not any(timing.steady for timing in found)


@pytest.mark.parametrize("slow", [{1, 2, 3}, {1, 2, 3, 4}, {0, 1, 3}])
def test_short_and_long_calls_are_slowed_alike(slow):
    """By most of the rounds, of which a short call has many times and a long one few."""
    machine = Machine()
    rounds = {"short": -1, "long": -1, "copy": -1}

    def contestant(name: str, seconds: float) -> Contestant:
        def call() -> None:
            if not machine.order or machine.order[-1] != name:
                rounds[name] += 1
            machine.now += seconds * (30 if rounds[name] % _ROUNDS in slow else 1)
            machine.order.append(name)

        return Contestant(call, 1)

    everyone = [contestant("short", 1e-3), contestant("long", 0.03)]
    found = machine.measure(*everyone, copy=contestant("copy", 1e-3))
    assert found[1].stats.median / found[0].stats.median == pytest.approx(30)


def test_a_disturbed_copy_is_measured_again_and_said():
    machine = Machine()
    copy = machine.contestant("copy", 0.03)

    def call() -> None:
        machine.slowness = lambda turn: 20.0 if turn % _ROUNDS in (1, 2) else 1.0
        copy.call()
        machine.slowness = lambda turn: 1.0

    calm = machine.contestant("calm", 0.03)
    (timing,) = machine.measure(calm, copy=Contestant(call, 1), traffic=0.5)
    assert machine.order.count("calm") == TRIES * _ROUNDS
    assert not timing.steady


def test_a_short_call_is_timed_often_and_for_a_step():
    machine = Machine()
    a = machine.contestant("a", 1e-3, steps=4)
    (timing,) = machine.measure(a, copy=1e-3)

    assert len(timing.stats.data) > 4 * _ROUNDS
    assert timing.stats.median == pytest.approx(1e-3)


def test_a_try_that_was_disturbed_is_repeated():
    machine = Machine(lambda turn: 15.0 if turn in (1, 2) else 1.0)
    contestants = [machine.contestant(name, 0.03) for name in "ab"]
    found = machine.measure(*contestants)

    assert machine.order.count("a") == machine.order.count("b") == 2 * _ROUNDS
    assert all(timing.steady for timing in found)
    assert [timing.stats.median for timing in found] == pytest.approx([0.03, 0.03])


def test_what_stays_unsteady_is_said_to_be():
    machine = Machine()
    calm, disturbed = machine.contestant("calm", 0.03), machine.contestant("disturbed", 0.03)
    slow = (1, 2)

    def call() -> None:
        machine.slowness = lambda turn: 15.0 if turn % _ROUNDS in slow else 1.0
        disturbed.call()
        machine.slowness = lambda turn: 1.0

    found = machine.measure(calm, Contestant(call, 1))

    assert machine.order.count("disturbed") == TRIES * _ROUNDS
    assert [timing.steady for timing in found] == [True, False]


def test_the_steadiest_try_is_kept():
    # one is disturbed in the first try, both in the others
    machine = Machine()
    machine.slowness = lambda turn: 15.0 if turn % _ROUNDS in (1, 2) and turn >= _ROUNDS else 1.0
    a, b = machine.contestant("a", 0.03), machine.contestant("b", 0.03)
    first = iter((1.0, 15.0, 15.0, 1.0, 1.0))

    def call() -> None:
        machine.now += 0.03 * (next(first, 1.0) - 1)
        b.call()

    found = machine.measure(a, Contestant(call, 1))
    assert [timing.steady for timing in found] == [True, False]


def test_nothing_is_faster_than_a_copy():
    machine = Machine()
    fast, half = machine.contestant("fast", 0.03), machine.contestant("half", 0.06)
    found = machine.measure(fast, half, copy=0.2133)

    assert found[0].share == pytest.approx(7.11)
    assert machine.order.count("fast") == TRIES * _ROUNDS
    assert not found[0].steady


def test_moving_half_the_bytes_may_take_half_the_time():
    machine = Machine()
    (timing,) = machine.measure(machine.contestant("forward", 0.03), copy=0.05, traffic=0.5)
    assert timing.share == pytest.approx(5 / 6)
    assert timing.steady


def test_what_takes_long_is_not_tried_again():
    machine = Machine(lambda turn: 2.0 if turn % _ROUNDS in (1, 2) else 1.0)
    (timing,) = machine.measure(machine.contestant("slow", 2.0))
    assert machine.order.count("slow") == _ROUNDS - 2  # rounds, too, are as few as may be
    assert not timing.steady


def test_what_always_waits_for_a_cpu_is_steady_but_wrong():
    machine = Machine()
    alone, delayed = machine.contestant("alone", 0.03), machine.contestant("delayed", 0.3)

    def call() -> None:
        delayed.call()
        machine.waited += 0.04

    found = machine.measure(alone, Contestant(call, 1))
    assert [timing.waited for timing in found] == pytest.approx([0, 0.04 / 0.3])
    assert [timing.steady for timing in found] == [True, False]
    assert machine.order.count("delayed") == TRIES * _ROUNDS


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this system does not count it"
)
def test_threads_in_line_for_a_cpu_are_waiting():
    """Two processes on one CPU, of which this is one."""
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
    hertz = 100
    stat = tmp_path / "stat"
    monkeypatch.setattr(load, "_STAT", stat)
    monkeypatch.setattr(load.os, "sysconf", lambda name: hertz)
    monkeypatch.setattr(load.os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    monkeypatch.setattr(load.os, "times", lambda: (1.0, 1.0, 0.5, 0.5, 99.0))
    # user nice system idle iowait irq softirq steal guest
    stat.write_text("cpu  100 0 0 100 0 0 0 0 0\ncpu0 1 1\n")
    watch = Load()
    assert watch.before == 1.5
    assert watch.others() is None  # no time has passed, as in a sandbox that counts none

    # 8 seconds of CPU time, 6 of them busy, 2 of these with this process
    stat.write_text("cpu  500 0 100 250 50 0 0 100 300\ncpu0 1 1\n")
    monkeypatch.setattr(load.os, "times", lambda: (2.0, 1.5, 0.5, 1.0, 99.0))
    assert watch.others() == pytest.approx(4 / 8)


def test_load_where_the_system_does_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "_STAT", tmp_path / "nothing")
    monkeypatch.delattr(load.os, "getloadavg")
    watch = Load()
    assert watch.before is None
    assert watch.others() is None

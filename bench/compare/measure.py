"""What is measured, and in which order."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bench.compare.checkout import Checkout, ComparisonError
from bench.compare.outcomes import Lacking, Outcome, Timed, difference, joined
from bench.compare.worker import Worker, worker

TURN = 0.05  # seconds, at least
# One process is faster than another of the same code, for as long as it lives: memory, cores, neighbours.  So each
# round has new ones.
PAIRS_OF_A_ROUND = 4

# n, k, batch, dtype
SHAPES = {
    "cpu": [
        (1000, 5, 256, "float32"),
        (1000, 20, 256, "float32"),
        (10_000, 5, 64, "float32"),
        (1000, 5, 256, "bfloat16"),
    ],
    "cuda": [
        (1000, 5, 256, "float32"),
        (1000, 5, 65_536, "float32"),
        (1000, 16, 65_536, "float32"),
        (32_768, 5, 2048, "bfloat16"),
    ],
}


@dataclass(frozen=True)
class Case:
    function: str
    n: int
    k: int | None  # None where the loss has no k
    batch: int
    dtype: str
    gradient: str | None = None

    @property
    def parameters(self) -> dict[str, int | str]:
        given = {"k": self.k, "gradient": self.gradient}
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        parameters = [f"{name}={value}" for name, value in self.parameters.items()]
        return " ".join([self.function, *parameters, f"n={self.n} batch={self.batch} {self.dtype}"])


def cases(device: str) -> list[Case]:
    found: list[Case] = []
    for n, k, batch, dtype in SHAPES[device]:
        found += [
            Case("smooth_svm", n, k, batch, dtype),
            Case("smooth_svm", n, k, batch, dtype, "taylor"),
            Case("hard_svm", n, k, batch, dtype),
            Case("lq_loss", n, None, batch, dtype),
            Case("smooth_svm_lq", n, k, batch, dtype),
        ]
    return list(dict.fromkeys(found))  # lq_loss at another k is the same again


def measure(
    base: Checkout, new: Checkout, text: str, pairs: int
) -> tuple[str, dict[Case, Outcome]]:
    """The machine, and the outcome of each case with this text in its name."""
    rounds = [min(PAIRS_OF_A_ROUND, pairs - done) for done in range(0, pairs, PAIRS_OF_A_ROUND)]
    found: dict[Case, list[Outcome]] = {}
    iterations: dict[Case, int] = {}
    for pairs_now in track(rounds, console=Console(stderr=True), transient=True):
        with worker(base) as a, worker(new) as b:
            machine = a.machine
            for case in (case for case in cases(a.device) if text in str(case)):
                outcome = _without_time(case, a, b)
                if outcome is None:
                    iterations[case] = iterations.get(case) or _iterations_of_a_turn(a, b)
                    outcome = _timed(a, b, pairs_now, iterations[case])
                found.setdefault(case, []).append(outcome)
        if not found:
            raise ComparisonError(f"no case has {text!r} in its name")
    return machine, {case: joined(parts) for case, parts in found.items()}


def _without_time(case: Case, base: Worker, new: Worker) -> Outcome | None:
    """Why the case is not to be timed; None where it is, and is prepared."""
    request = asdict(case) | {"parameters": case.parameters}
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder, "base.npz"), Path(folder, "new.npz")]
        if (what := base.prepare(request, results[0])) is not None:
            return Lacking(f"base: {what}")
        if (what := new.prepare(request, results[1])) is not None:
            return Lacking(f"new: {what}")
        return difference(results[0], results[1], case.dtype)


def _iterations_of_a_turn(base: Worker, new: Worker) -> int:
    iterations = 1
    # The faster of the two, lest a disturbance be taken for the length of a turn.
    while min(base.seconds(iterations), new.seconds(iterations)) * iterations < TURN:
        iterations *= 2
    return iterations


def _timed(base: Worker, new: Worker, pairs: int, iterations: int) -> Timed:
    times: dict[Worker, list[float]] = {base: [], new: []}
    for pair in range(pairs):
        for turn in (base, new) if pair % 2 == 0 else (new, base):
            times[turn].append(turn.seconds(iterations))
    return Timed(times[base], times[new])

"""The machine code of the kernels for GPUs that need not be there: its promises, and what the ledger says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

pytest.importorskip("triton", reason="Triton does not exist for this platform")

import triton

from bench.ledger.cases import KNOWN_TO_SPILL, TESTED
from bench.ledger.check import broken_promises, regressions
from bench.ledger.entry import Entry, load_ledger
from bench.ledger.pool import compiling

LEDGER = load_ledger()
# Of each loss, of each way through the kernel and of each vendor one.
ALWAYS_COMPILED = {
    "sm_90-smooth_svm-n1000-k5-float32",
    "sm_90-smooth_svm-n16384-k5-float32",
    "sm_90-smooth_svm-n131072-k5-float32-summaries",
    "sm_90-smooth_svm-n131072-k5-float32-finish",
    "sm_90-hard_svm-n1000-k5-float32",
    "sm_90-lq_loss-n1000-bfloat16",
    "sm_90-smooth_svm_lq-n1000-k5-bfloat16",
    "gfx942-smooth_svm-n1000-k5-float32",
}


def sometimes(names: Iterable[str]) -> list[pytest.ParameterSet]:
    """Those that are not always compiled are for --all."""
    return [
        pytest.param(name, marks=() if name in ALWAYS_COMPILED else pytest.mark.exhaustive)
        for name in sorted(names)
    ]


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Entry]]:
    """What comes of a launch, its case compiled once, with all others of this run, in processes of their own."""
    names = {
        item.callspec.params["name"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    }
    with compiling({TESTED[name] for name in names}) as entries:

        def result(name: str) -> Entry:
            (found,) = (x for x in entries[TESTED[name]].result() if x.name == name)
            return found

        yield result


@pytest.mark.parametrize("name", sometimes(TESTED.keys() - KNOWN_TO_SPILL))
def test_nothing_is_spilled_and_aligned_rows_move_in_128_bits(name, compiled):
    broken = broken_promises(compiled(name))
    assert not broken, "\n".join(broken)


@pytest.mark.skipif(
    triton.__version__ != LEDGER.triton, reason=f"the ledger is for Triton {LEDGER.triton}"
)
@pytest.mark.parametrize("name", sometimes(TESTED))
def test_no_worse_than_the_ledger_says(name, compiled):
    worse = regressions(LEDGER.entries[name], compiled(name))
    assert not worse, "\n".join(worse)

"""The machine code of the kernels for GPUs that need not be there: its promises, and what the ledger says of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

pytest.importorskip("triton", reason="Triton does not exist for this platform")

import torch
import triton

from bench.ahead_of_time import Case, is_nvidia, names
from bench.ledger.cases import JOBS, KNOWN_TO_SPILL, LARGE, SM_100, SMALL
from bench.ledger.facts import Facts, compile_all
from bench.ledger.file import load, wide_accesses, worse

LEDGER = load()
_PATHS = {
    *(Case(SMALL, k, torch.float32) for k in (1, 10, 16)),
    *(Case(n, 5, torch.float32) for n in (128, 16384)),
    Case(16384, 10, torch.float32),
}


def _is_tested(case: Case, architecture: str) -> bool:
    """Every loss, for sm_90 on every path through the kernel: all of it takes the tests ten minutes."""
    if architecture != "sm_90":
        return case in SM_100 and case.n == SMALL and case.dtype == torch.float32
    if case.shards > 1 and (case.n != SMALL or case.dtype != torch.float32):
        return False
    main = case.n == SMALL or (case.n == LARGE and case.gradient)
    return case in _PATHS or (main and case.k in (5, None))


TESTED = {  # by the names of the launches
    name: (case, architecture)
    for case, architecture in JOBS
    if _is_tested(case, architecture)
    for name in names(case, architecture)
}
# Of each loss, of each way through the kernel and of each vendor one.
ALWAYS_COMPILED = {
    "sm_90-smooth_svm-n1000-k5-float32",
    "sm_90-smooth_svm-n16384-k5-float32",
    "sm_90-smooth_svm-n131072-k5-float32-summaries",
    "sm_90-smooth_svm-n131072-k5-float32-finish",
    "sm_90-hard_svm-n1000-k5-float32",
    "sm_90-lq_loss-n1000-bfloat16",
    "sm_90-smooth_svm_lq-n1000-k5-bfloat16",
    "gfx942-hard_svm-n1000-k5-float32",
}


def sometimes(names: Iterable[str]) -> list[pytest.ParameterSet]:
    """Mark the cases that are compiled with --all only."""
    return [
        pytest.param(name, marks=() if name in ALWAYS_COMPILED else pytest.mark.exhaustive)
        for name in sorted(names)
    ]


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> dict[str, Facts]:
    """Return the result of each launch; all of this run are compiled together, in processes of their own."""
    names = {
        item.callspec.params["name"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    }
    found = compile_all({TESTED[name] for name in names})
    return {name: facts for launches in found for name, facts in launches.items()}


@pytest.mark.parametrize("name", sometimes(TESTED.keys() - KNOWN_TO_SPILL))
def test_nothing_is_spilled_and_aligned_rows_move_in_128_bits(name, compiled):
    facts, (case, architecture) = compiled[name], TESTED[name]
    assert facts["spills"] == facts["stack bytes"] == 0
    if is_nvidia(architecture) and case.aligned and case.n * case.dtype.itemsize % 16 == 0:
        wide = wide_accesses(facts)
        assert wide["wide loads"] > 0
        has_gradient = case.gradient and not name.endswith(("summaries", "summary"))
        assert wide["wide stores"] > 0 or not has_gradient


@pytest.mark.skipif(
    triton.__version__ != LEDGER.triton, reason=f"the ledger is for Triton {LEDGER.triton}"
)
@pytest.mark.parametrize("name", sometimes(TESTED))
def test_no_worse_than_the_ledger_says(name, compiled):
    found = worse(name, LEDGER.kernels[name], compiled[name])
    assert not found, "\n".join(found)

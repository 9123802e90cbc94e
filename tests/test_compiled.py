"""The machine code of the kernel for GPUs that need not be there: nothing spilled, wide loads and stores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

pytest.importorskip("triton", reason="Triton does not exist for this platform")

from ahead_of_time import Case, Code, compile_case

NVIDIA = ("sm_80", "sm_90", "sm_100")
ALL = (*NVIDIA, "gfx942")
WIDE = [
    Case(1000, 5, torch.float32),
    Case(1000, 5, torch.bfloat16),
    Case(1000, 5, torch.float64),
    Case(1000, 5, torch.float32, order=2),
    Case(1000, 5, torch.float32, gradient=False),
    Case(1000, 1, torch.float32),
    Case(100, 5, torch.float32),
    Case(16384, 5, torch.float32),
    Case(131072, 5, torch.float32),
    Case(1000, 1, torch.float32, loss="lq_loss"),
    Case(1000, 1, torch.bfloat16, loss="lq_loss"),
    Case(131072, 1, torch.float32, loss="lq_loss"),
    Case(1000, 5, torch.float32, loss="smooth_svm_lq"),
    Case(1000, 5, torch.float32, loss="hard_svm"),
]
NARROW = [
    Case(21841, 5, torch.float32),
    Case(1000, 5, torch.float32, aligned=False),
    Case(1000, 5, torch.bfloat16, loss="smooth_svm_lq"),
    Case(100, 5, torch.float32, loss="smooth_svm_lq"),
    Case(16384, 5, torch.float32, loss="smooth_svm_lq"),
]
# Longer to compile.
LARGE_K = [
    Case(1000, 10, torch.float32),
    Case(1000, 16, torch.float32),
    Case(1000, 10, torch.bfloat16),
    Case(1000, 16, torch.bfloat16, order=4),
    Case(1000, 16, torch.float32, loss="smooth_svm_lq"),
]


@pytest.fixture(scope="module")
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Case, str], Code]]:
    """The code of a case, compiled once, with all others of this run, in processes of their own."""
    wanted = {
        (item.callspec.params["case"], item.callspec.params["architecture"])
        for item in request.session.items
        if item.path == request.path
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=context) as pool:
            futures = {
                key: pool.submit(compile_case, *key)
                for key in sorted(wanted, key=lambda key: (key[0] in LARGE_K, str(key)))
            }
            yield lambda case, architecture: futures[case, architecture].result()
            pool.shutdown(cancel_futures=True)


def wide_accesses(code: Code, architecture: str) -> tuple[int, int]:
    """Loads and stores of 128 bits a lane from and to global memory."""
    if architecture == "gfx942":
        kinds = [("global_load_dwordx4", "buffer_load_dwordx4")]
        kinds.append(("global_store_dwordx4", "buffer_store_dwordx4"))
    else:
        kinds = [("LDG.E.128",), ("STG.E.128",)]
    loads, stores = (
        sum(count for name, count in code.opcodes.items() if name.startswith(kind))
        for kind in kinds
    )
    return loads, stores


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("case", WIDE + NARROW, ids=str)
def test_nothing_is_spilled(case, architecture, compiled):
    code = compiled(case, architecture)
    assert code.spills == 0
    assert code.stack_bytes == 0


@pytest.mark.parametrize("architecture", ["sm_90", "gfx942"])
@pytest.mark.parametrize("case", LARGE_K, ids=str)
def test_nothing_is_spilled_for_a_large_k(case, architecture, compiled):
    code = compiled(case, architecture)
    assert code.spills == 0
    assert code.stack_bytes == 0


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_aligned_rows_are_read_and_written_in_128_bits(case, architecture, compiled):
    expect_wide_accesses(case, architecture, compiled(case, architecture))


@pytest.mark.parametrize("architecture", ["sm_90", "gfx942"])
@pytest.mark.parametrize("case", LARGE_K[:1], ids=str)
def test_aligned_rows_are_read_and_written_in_128_bits_for_k_10(case, architecture, compiled):
    expect_wide_accesses(case, architecture, compiled(case, architecture))


def expect_wide_accesses(case: Case, architecture: str, code: Code) -> None:
    config = code.config
    lanes = 64 if architecture == "gfx942" else 32
    bits = 8 * case.dtype.itemsize * config.rows * config.lanes // (lanes * config.warps)
    # A last block that is cut off may be narrower.  A loop has its accesses once: two phases and top.
    blocks = 1 if config.stream else case.n // config.lanes
    each = blocks * (bits // 128)
    loads, stores = wide_accesses(code, architecture)
    assert loads >= each
    assert stores >= (each if case.gradient else 0)

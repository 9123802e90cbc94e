"""A launch: nothing is compiled again for another batch, and Triton is asked once for what it has compiled."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton does not exist for this platform")

from kernel_stand_in import Kernel
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from bench.ahead_of_time import Driver, Recorder
from triton_topk.batch import Batch
from triton_topk.kernels import launch
from triton_topk.kernels.config import vector_of
from triton_topk.losses import HardSVM, Loss, Lq, SmoothSVM

LQ = Lq(0.7)


IN_PARTS = 40_000  # scores of a row too long for one program


def batch(
    n_rows: int, stride: int = 128, dtype: torch.dtype = torch.float32, n: int = 100
) -> dict[str, Any]:
    """Arguments of launch.run."""
    scores = torch.zeros(n_rows, max(n, stride), dtype=dtype)[:, :n]
    return {
        "batch": Batch(scores, torch.zeros(n_rows, dtype=torch.int64)),
        "loss": LQ,
        "losses": torch.zeros(n_rows),
        "gradient": torch.zeros(n_rows, n, dtype=dtype),
    }


def unaligned(tensor: Tensor) -> Tensor:
    """A copy that starts at no multiple of 16 bytes."""
    out = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)
    return out.copy_(tensor)


ROWS = [SmoothSVM(k, 1.0, 1.0) for k in (1, 2, 3, 5)] + [HardSVM(k, 1.0) for k in (1, 3)] + [LQ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("loss", ROWS, ids=str)
def test_rows_of_any_length_have_scores_for_each_lane_and_few_loads(
    loss: Loss, dtype: torch.dtype
) -> None:
    for n in (*range(8, 2100), 5000, 32_767, 50_257):
        config = launch.choose(loss, n, dtype)
        vector = vector_of(n, dtype)
        # no short row begins between two vectors, whose scores Triton would move between lanes
        assert n % vector == 0 or (n > 1024 and (config.stream or config.rows == 1))
        assert config.parts * config.columns / vector <= max(2, n / 4)
        # loads that are unrolled, and compile in seconds
        assert config.stream or config.blocks * config.vectors <= 32
        assert config.vectors == 1 or config.columns < n


# What Triton has compiled, kept


@pytest.fixture
def kernel(stand_ins: dict[str, Kernel]) -> Kernel:
    return stand_ins["loss_kernel"]


def test_what_was_compiled_is_launched_with_the_arguments_of_the_kernel(kernel: Kernel) -> None:
    small, large = batch(2), batch(33)
    for given in (small, large):
        launch.run(**given)
    assert kernel.asked == 1
    first, second = kernel.launched
    expected = large["batch"]._asdict() | large
    of_the_batch = {"scores", "labels", "losses", "gradient"}
    for name in of_the_batch:
        assert first[name] is not second[name]
        assert torch.equal(second[name], expected[name])
    assert (first.pop("n_rows"), second.pop("n_rows")) == (2, 33)
    assert first.pop("grid") < second.pop("grid")
    assert all(first[name] == second[name] for name in first.keys() - of_the_batch)


@pytest.mark.parametrize("with_gradient", [True, False])
def test_a_row_in_parts_is_summarised_and_finished(kernel: Kernel, with_gradient: bool) -> None:
    for n_rows in (2, 33):
        given = batch(n_rows, n=IN_PARTS)
        if not with_gradient:
            given["gradient"] = None
        launch.run(**given)
        summaries, finish = kernel.launched[-2:]
        layouts = [launched["LAYOUT"].group for launched in (summaries, finish)]
        parts = layouts[0].parts
        assert parts == layouts[1].parts > 1
        assert [layout.finish for layout in layouts] == [False, True]
        assert summaries["grid"] == (n_rows * parts, 1, 1)
        assert finish["grid"] == (n_rows * (parts if with_gradient else 1), 1, 1)
        assert summaries["summaries"] is finish["summaries"]
        assert summaries["summaries"].shape[:2] == (n_rows, parts)
        assert (summaries["losses"], summaries["gradient"]) == (None, None)
        assert (finish["losses"], finish["gradient"]) == (given["losses"], given["gradient"])
    assert kernel.asked == 2


def with_tensors(**tensors: Tensor) -> dict[str, Any]:
    """A batch of two rows with other tensors."""
    given = batch(2)
    return given | {"batch": given["batch"]._replace(**tensors)}


OTHER = {
    "dtype": batch(2, dtype=torch.bfloat16),
    "unaligned scores": with_tensors(scores=unaligned(batch(2)["batch"].scores)),
    "unaligned rows": batch(2, stride=101),
    "unaligned gradient": batch(2) | {"gradient": unaligned(batch(2)["gradient"])},
    "labels": with_tensors(labels=torch.zeros(2, dtype=torch.int32)),
    "weight": with_tensors(weight=torch.ones(100)),
    "other weight": with_tensors(weight=torch.ones(100).double()),
    "sample weight": with_tensors(sample_weight=torch.ones(2)),
    "margins": with_tensors(margins=torch.ones(2, 100)),
    "hits": batch(2) | {"hits": torch.zeros(2, 2, dtype=torch.bool)},
    "normalizer": with_tensors(normalizer=torch.ones(())),
    "upstream": batch(2) | {"upstream": torch.ones(2)},
    "no losses": batch(2) | {"losses": None},
    "no gradient": batch(2) | {"gradient": None},
    "loss": batch(2) | {"loss": replace(LQ, truncation=0.5)},
}


def test_triton_is_asked_for_arguments_of_another_kind(kernel: Kernel) -> None:
    launch.run(**batch(2))
    for asked, given in enumerate(OTHER.values(), 2):
        for _ in range(2):
            launch.run(**given)
        assert kernel.asked == asked, list(OTHER)[asked - 2]
    launch.run(**batch(2))
    assert kernel.asked == 1 + len(OTHER)


def test_another_device_is_another_kind() -> None:
    kernel, compiled = Kernel(launch.scale_kernel), {}
    for device, asked in (("cpu", 1), ("meta", 2), ("cpu", 2)):
        tensors = torch.zeros(8, device=device), torch.ones((), device=device)
        launch._launch(kernel, 1, tensors, (8,), {"BLOCK": 8, "PROGRAMS": 1}, compiled)
        assert kernel.asked == asked


# What Triton compiles


def _compilations(n: int) -> dict[str, int]:
    """Count the different compilations of each kernel for batches that differ."""
    driver.set_active(Driver(GPUTarget("cuda", 90, 32)))
    names = ("loss_kernel", "scale_kernel")
    for name in names:
        setattr(launch, name, Recorder(getattr(launch, name)))
    weight, normalizer = torch.ones(n), torch.ones(2)
    for n_rows in (1, 2, 15, 16, 33):
        for ignore_index in (-100, 0, 1, 16):
            given = batch(n_rows, stride=n + 28 + 4 * n_rows, n=n)
            given["loss"] = replace(LQ, ignore_index=ignore_index, q=1 / n_rows)
            given["batch"] = given["batch"]._replace(
                labels=torch.zeros(n_rows + 1, dtype=torch.int64)[n_rows % 2 :][:n_rows],
                weight=weight,
                sample_weight=torch.ones(n_rows + 1)[n_rows % 2 :][:n_rows],
                margins=torch.ones(n_rows, n if n_rows % 2 else 1).expand(n_rows, n),
                normalizer=normalizer[n_rows % 2],
            )
            launch.run(
                **given,
                upstream=torch.zeros(2 * n_rows)[:: 1 + n_rows % 2][:n_rows],
                hits=torch.zeros(n_rows, 2, dtype=torch.bool),
            )
        launch.scale_(given["gradient"], normalizer[n_rows % 2])
    return {name: len({id(x) for x in getattr(launch, name).compiled}) for name in names}


@pytest.mark.parametrize(("n", "launches"), [(100, 1), (IN_PARTS, 2)])
def test_nothing_is_compiled_again_for_another_batch(n: int, launches: int) -> None:
    context = multiprocessing.get_context("spawn")
    # a Triton with this driver can launch nothing
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(_compilations, n).result()
    assert found == {"loss_kernel": launches, "scale_kernel": 1}

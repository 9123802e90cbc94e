"""Two processes, under DistributedDataParallel and FSDP2, have the gradient of one with the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from losses import MODULES, one_of_each, random_labels, random_scores
from torch import Tensor, multiprocessing
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import triton_topk

WORLD = 2
LOSSES = {loss.name: loss for loss in one_of_each(3)}
WRAPPERS = ["data parallel", "sharded", "sharded after each use"]
SHARES = [slice(0, 5), slice(5, 12)]
INPUTS, LABELS = random_scores(12, 8), random_labels(12, n=11).index_fill(0, torch.tensor(7), -100)


class Model(torch.nn.Module):
    """The layer's weight is used by the loss, in the forward of what is distributed."""

    def __init__(self, name: str, reduction: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.layer = torch.nn.Linear(8, 6), torch.nn.Linear(6, 11)
        self.loss = getattr(triton_topk, f"linear_{name}")
        self.options = {**LOSSES[name].options, "reduction": reduction, "chunk_rows": 2}

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        bias = self.layer.bias
        x = self.hidden(x).relu()
        return self.loss(x, self.layer.weight, labels, linear_bias=bias, **self.options).sum()


def gradients(wrapper: str, model: Model, rank: int) -> list[Tensor]:
    """Return the gradients of two backwards, each with this process's share of the whole batch."""
    if wrapper == "data parallel":
        wrapped: torch.nn.Module = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (WORLD,))
        again = wrapper == "sharded after each use"
        wrapped = fully_shard(model, mesh=mesh, reshard_after_forward=again)
    for _ in range(2):
        # the gradients of the processes are averaged
        (WORLD * wrapped(INPUTS[SHARES[rank]], LABELS[SHARES[rank]])).backward()
    found = [x.grad for x in model.parameters()]
    return [x.full_tensor() if isinstance(x, DTensor) else x for x in found]


def _process(rank: int, folder: Path) -> None:
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    found = {
        (wrapper, name, reduction): gradients(wrapper, Model(name, reduction), rank)
        for wrapper in WRAPPERS
        for name in MODULES
        for reduction in ("sum", "none")
    }
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, ...], list[Tensor]]]:
    """The gradients of each process."""
    folder = tmp_path_factory.mktemp("distributed")
    multiprocessing.spawn(_process, (folder,), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradients_of_the_whole_batch(
    wrapper: str, name: str, reduction: str, found: list[dict[tuple[str, ...], list[Tensor]]]
) -> None:
    model = Model(name, reduction)
    (2 * model(INPUTS, LABELS)).backward()
    for of_process in found:
        assert_close(of_process[wrapper, name, reduction], [x.grad for x in model.parameters()])

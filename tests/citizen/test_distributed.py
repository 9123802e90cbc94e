"""Two processes under DistributedDataParallel have the gradients of one with the whole batch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from losses import MODULES, one_of_each, random_labels, random_scores
from torch import Tensor, multiprocessing
from torch.nn.parallel import DistributedDataParallel

WORLD = 2
LOSSES = {loss.name: loss for loss in one_of_each(3)}
# Shares of unequal size, in two parts that are accumulated; one label is ignored.
SHARES = [[slice(0, 3), slice(3, 5)], [slice(5, 9), slice(9, 12)]]
INPUTS, LABELS = random_scores(12, 8), random_labels(12, n=11).index_fill(0, torch.tensor(7), -100)
WEIGHT = torch.linspace(0.5, 2, 11)


class Model(torch.nn.Module):
    """Scores and loss, so that the loss is inside of what is distributed."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(8, 11)
        self.loss = LOSSES[name].module(**options)

    def forward(self, x: Tensor, labels: Tensor, normalizer: Tensor | None) -> Tensor:
        return self.loss(self.layer(x), labels, normalizer=normalizer)


def options_of(name: str, weighted: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"weight": WEIGHT} if weighted else {}
    if weighted and name != "lq_loss":
        options["margin"] = torch.linspace(0, 2, 11)
    return options


def train(rank: int, model: Model) -> Tensor:
    """The gradient of a step of two parts."""
    distributed = DistributedDataParallel(model)
    parts = SHARES[rank]
    counted = torch.cat([LABELS[part] for part in parts])
    counted = counted[counted != -100]
    weight = model.loss.weight
    normalizer = weight[counted].sum() if weight is not None else torch.tensor(len(counted))
    dist.all_reduce(normalizer)
    for part in parts:
        last = part is parts[-1]
        with nullcontext() if last else distributed.no_sync():
            # the gradients of the processes are averaged
            (WORLD * distributed(INPUTS[part], LABELS[part], normalizer)).backward()
    assert model.layer.weight.grad is not None
    return model.layer.weight.grad


def _process(rank: int, folder: Path) -> None:
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    found = {
        (name, weighted): train(rank, Model(name, **options_of(name, weighted)))
        for name in MODULES
        for weighted in (False, True)
    }
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, bool], Tensor]]:
    """Return the results of each process, by loss."""
    folder = tmp_path_factory.mktemp("distributed")
    multiprocessing.spawn(_process, (folder,), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_the_whole_batch(
    name: str, weighted: bool, gradients: list[dict[tuple[str, bool], Tensor]]
) -> None:
    model = Model(name, **options_of(name, weighted))
    model(INPUTS, LABELS, None).backward()
    for found in gradients:
        torch.testing.assert_close(found[name, weighted], model.layer.weight.grad)

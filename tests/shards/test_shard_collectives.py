"""A loss of shards gathers one summary of its rows in the forward, and its backward needs no other rank."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch.distributed as dist
from losses import Loss, every_loss, random_labels, random_scores
from processes import Ranks
from sharded import shard_of
from torch.distributed.tensor.debug import CommDebugMode
from torch.profiler import ProfilerActivity, profile

C = 40
SCORES, LABELS = random_scores(6, C), random_labels(6, n=C)
RanksOf = Callable[[int], Ranks]


class Profile:
    """Counts the collectives of plain calls, as CommDebugMode does of calls of operators."""

    def __enter__(self) -> Profile:
        self._profile = profile(activities=[ProfilerActivity.CPU])
        self._profile.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._profile.__exit__(*args)

    def get_comm_counts(self) -> dict[str, int]:
        names = [event.name.replace("::", ".") for event in self._profile.events()]
        return {name: names.count(name) for name in names if name.startswith("c10d.")}


def collectives(loss: Loss, reduction: str, mode: type[Profile]) -> list[dict[str, int]]:
    """Return the collectives of the forward, of a backward and of another."""
    local, shard = shard_of(SCORES, [0, 13, 26])
    leaf = local.clone().requires_grad_()
    with mode() as forward:
        out = loss(leaf, LABELS, shard=shard, reduction=reduction).sum()
    with mode() as backward:
        out.backward(retain_graph=True)
    with mode() as again:
        out.backward()
    counts = [x.get_comm_counts() for x in (forward, backward, again)]
    return [{str(name): n for name, n in count.items()} for count in counts]


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mode", [Profile, CommDebugMode])
def test_one_all_gather_in_the_forward(
    loss: Loss, reduction: str, mode: type[Profile], ranks_of: RanksOf
) -> None:
    for counts in ranks_of(3)(collectives, loss, reduction, mode):
        assert counts == [{"c10d._allgather_base_": 1}, {}, {}]


def bytes_sent(loss: Loss) -> int:
    local, shard = shard_of(SCORES, [0, 13, 26])
    name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
    with mock.patch.object(dist, name, wraps=getattr(dist, name)) as gather:
        loss(local, LABELS, shard=shard)
    (_, sent), _ = gather.call_args
    return sent.nbytes


@pytest.mark.parametrize(
    ("loss", "numbers"),
    [
        (Loss("smooth_svm", k=5), 2 * 5 + 5),
        (Loss("smooth_svm_lq", k=5), 2 * 5 + 5),
        (Loss("hard_svm", k=5), 5 + 5),
        (Loss("lq_loss", k=5), 1 + 5),
    ],
    ids=str,
)
def test_numbers_that_a_row_sends(loss: Loss, numbers: int, ranks_of: RanksOf) -> None:
    assert ranks_of(3)(bytes_sent, loss) == [len(LABELS) * numbers * 8] * 3

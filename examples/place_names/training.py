"""One training: an EmbeddingBag of hashed n-grams and a linear layer."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from place_names.losses import LOSSES
from place_names.names import BUCKETS, Places, load

BATCH = 512
TOPS = (1, 5, 10)
HELD_OUT = 0.1  # of the names, for validation and again for testing


class Condition(NamedTuple):
    """A problem: which names there are, how wrong their labels are and how long a network is trained.

    `fraction` of the training pairs is used. A label is redrawn with the probability `noise`, from
    all classes or, if `grouped`, from those of its country or continent. The learning rate falls
    to 0 over the epochs, or is `constant`.
    """

    task: str = "region"
    fraction: float = 0.25
    noise: float = 0.0
    grouped: bool = False
    width: int = 64
    epochs: int = 6
    constant: bool = False


class Recipe(NamedTuple):
    """AdamW's settings."""

    lr: float
    decay: float


class Run(NamedTuple):
    """One training and all that its result depends on."""

    condition: Condition
    loss: str
    recipe: Recipe
    seed: int


class Split(NamedTuple):
    """Indices of names and labels [pairs]."""

    name: Tensor
    label: Tensor


def redraw(labels: Tensor, noise: float, group: Tensor, generator: torch.Generator) -> Tensor:
    """Replace each label with probability `noise` by a class of its group, its own included."""
    by_group, size = group.argsort(stable=True), group.bincount()
    first, own = size.cumsum(0) - size, group[labels]
    share = torch.rand(labels.shape, generator=generator, dtype=torch.float64)
    drawn = by_group[first[own] + (share * size[own]).long()]
    return torch.where(torch.rand(labels.shape, generator=generator) < noise, drawn, labels)


def split(places: Places, condition: Condition, seed: int) -> tuple[Split, Split, Split]:
    """Training and validation pairs with noise, test pairs without.

    No name is in two splits, and every seed has splits of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(len(places.names), generator=generator)[places.name]
    pool = (share >= 2 * HELD_OUT).nonzero().squeeze(1)
    pool = pool[torch.randperm(len(pool), generator=generator)]
    train = pool[: round(condition.fraction * len(pool))]
    validation = ((share >= HELD_OUT) & (share < 2 * HELD_OUT)).nonzero().squeeze(1)
    test = (share < HELD_OUT).nonzero().squeeze(1)
    group = places.group if condition.grouped else torch.zeros_like(places.group)
    noisy = [
        Split(places.name[part], redraw(places.label[part], condition.noise, group, generator))
        for part in (train, validation)
    ]
    return *noisy, Split(places.name[test], places.label[test])


class Network(nn.Module):
    """Scores of the classes, from indices of names."""

    def __init__(self, places: Places, width: int) -> None:
        super().__init__()
        self.places = places
        self.embedding = nn.EmbeddingBag(BUCKETS, width, mode="mean")
        self.linear = nn.Linear(width, len(places.titles))

    def forward(self, name: Tensor) -> Tensor:
        return self.linear(self.embedding(*self.places.bags(name)))


def fit(run: Run, training: Split) -> Network:
    condition, recipe = run.condition, run.recipe
    loss = LOSSES[run.loss].function
    torch.manual_seed(run.seed)
    network = Network(load(condition.task), condition.width)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.lr, weight_decay=recipe.decay, fused=True
    )
    batches = -(-len(training.name) // BATCH)
    end = 1.0 if condition.constant else 0.0
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, end, total_iters=condition.epochs * batches
    )
    for _ in range(condition.epochs):
        for batch in torch.randperm(len(training.name)).split(BATCH):
            optimizer.zero_grad()
            loss(network(training.name[batch]), training.label[batch]).backward()
            optimizer.step()
            schedule.step()
    return network


@torch.no_grad()
def accuracies(network: Network, pairs: Split) -> list[float]:
    """Per cent of the pairs whose class is among the first 1, 5 and 10.

    A class with an equal score, or with NaN, stands before the label.
    """
    hits = torch.zeros(len(TOPS))
    for name, label in zip(pairs.name.split(BATCH), pairs.label.split(BATCH), strict=True):
        scores = network(name)
        rank = (~(scores < scores.gather(1, label[:, None]))).sum(1)
        hits += torch.stack([(rank <= k).sum() for k in TOPS])
    return (100 * hits / len(pairs.name)).tolist()


def train(run: Run) -> list[list[float]]:
    """Top-1, top-5 and top-10 accuracies on validation pairs, then on test pairs."""
    training, *held_out = split(load(run.condition.task), run.condition, run.seed)
    network = fit(run, training)
    return [accuracies(network, pairs) for pairs in held_out]

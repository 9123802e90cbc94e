"""Training of one ResNet on image files, resumable after every epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from label_noise import archives, noise
from label_noise.archives import Images
from label_noise.losses import LOSSES, prunes_at, top_accuracies, total
from label_noise.presets import ImageRecipe
from label_noise.resnet import resnet18
from label_noise.runs import Condition, Run

EVALUATION_BATCH = 1000
PADDING = 4


@dataclass(frozen=True)
class Task:
    """`top`: the k of the top-k loss and of the top-k accuracy that is reported.

    `flipped`: the class-dependent noise of Zhang and Sabuncu; None for noise in superclasses.
    """

    title: str
    n_classes: int
    top: int
    load: Callable[[Path], tuple[Images, Images]]
    flipped: dict[int, int] | None


TASKS = {
    # truck to automobile, bird to airplane, deer to horse, cat to dog and back
    "cifar10": Task("CIFAR-10", 10, 3, archives.cifar10, {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}),
    "cifar100": Task("CIFAR-100", 100, 5, archives.cifar100, None),
    # boot to sneaker, sneaker to sandal, pullover to shirt, coat to dress and back
    "fashion-mnist": Task(
        "Fashion-MNIST", 10, 3, archives.fashion_mnist, {9: 7, 7: 5, 2: 6, 4: 3, 3: 4}
    ),
}


def targets_of(task: Task, condition: Condition, train: Images) -> noise.Targets:
    if condition.noise != noise.CLASS_DEPENDENT:
        return noise.uniform(task.n_classes)
    if task.flipped is not None:
        return noise.flips(task.n_classes, task.flipped)
    members = (train.labels[train.groups == group] for group in train.groups.unique())
    return noise.within_groups(labels.unique().tolist() for labels in members)


def load(run: Run) -> tuple[Images, Images, Images]:
    """Noisy training and validation split and the clean test images, for the run's one seed."""
    task, condition = TASKS[run.condition.task], run.condition
    train, test = task.load(Path(run.root))
    (seed,) = run.seeds
    generator = torch.Generator().manual_seed(seed)
    targets = targets_of(task, condition, train)
    noisy = noise.redraw(train.labels, condition.rate, targets, generator)
    order = torch.randperm(len(noisy), generator=generator)
    validation, rest = order.tensor_split([round(run.recipe.validation * len(order))])
    chosen = rest[: round(condition.fraction * len(rest))]
    return (
        Images(train.images[chosen], noisy[chosen]),
        Images(train.images[validation], noisy[validation]),
        test,
    )


def augment(images: Tensor, recipe: ImageRecipe, generator: torch.Generator) -> Tensor:
    """A random crop after padding and a random mirror image of each of images [N, C, H, W]."""
    n, _, height, width = images.shape
    rows, columns = torch.arange(height).repeat(n, 1), torch.arange(width).repeat(n, 1)
    if recipe.crop:
        images = F.pad(images, (PADDING,) * 4)
        down, right = torch.randint(2 * PADDING + 1, (2, n, 1), generator=generator)
        rows, columns = rows + down, columns + right
    if recipe.flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    place = torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None]
    augmented = images.movedim(1, 3)[tuple(index.to(images.device) for index in place)].movedim(
        3, 1
    )
    # Channels last, PyTorch 2.13's convolution of few channels corrupts memory on the CPU.
    return augmented.contiguous()


class Training:
    """A network, and everything else that changes from epoch to epoch."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.recipe, self.device = run.recipe, device
        (self.seed,) = run.seeds
        task = TASKS[run.condition.task]
        self.tops = (1, task.top)
        self.train, *self.held_out = (
            Images(*(part.to(device) for part in split[:2])) for split in load(run)
        )
        pixels = self.train.images.float()
        self.std, self.mean = torch.std_mean(pixels, (0, 2, 3), keepdim=True)
        torch.manual_seed(self.seed)
        self.model = resnet18(pixels.shape[1], task.n_classes, self.recipe.width).to(device)
        self.criterion = LOSSES[run.loss](task.top, len(pixels)).to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
            weight_decay=self.recipe.decay,
        )
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(
            self.optimizer, list(self.recipe.milestones)
        )
        self.history: list[Tensor] = []
        self.best = self.model.state_dict()

    def normalized(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std

    def epoch(self) -> None:
        """Train on every image once, then evaluate and, where it is due, prune."""
        number = len(self.history) + 1
        # Seeded by the epoch, so that a resumed training goes on with the same numbers.
        generator = torch.Generator().manual_seed(self.seed * 100_000 + number)
        self.model.train()
        for batch in torch.randperm(len(self.train.labels), generator=generator).split(
            self.recipe.batch
        ):
            samples = batch.to(self.device)
            images = augment(self.train.images[samples], self.recipe, generator)
            scores = self.model(self.normalized(images))
            self.optimizer.zero_grad()
            labels = self.train.labels[samples]
            (total(self.criterion, scores, labels, samples) / len(batch)).backward()
            self.optimizer.step()
        self.schedule.step()
        self.evaluate()
        if prunes_at(self.criterion, number, self.recipe.prune_from, self.recipe.prune_every):
            samples = torch.arange(len(self.train.labels), device=self.device)
            scores = self.scores(self.best, self.train.images)
            self.criterion.prune(scores, self.train.labels, samples)

    @torch.no_grad()
    def scores(self, state: dict[str, Tensor], images: Tensor) -> Tensor:
        """Compute the scores of the network with this state, without augmentation."""
        self.model.eval()
        parts = map(self.normalized, images.split(EVALUATION_BATCH))
        return torch.cat([functional_call(self.model, state, (part,)) for part in parts])

    def evaluate(self) -> None:
        state = self.model.state_dict()
        accuracies = torch.stack(
            [
                top_accuracies(self.scores(state, images), labels, self.tops)
                for images, labels, _ in self.held_out
            ]
        ).cpu()
        if all(accuracies[0, 0] > earlier[0, 0] for earlier in self.history):
            self.best = copy.deepcopy(state)
        self.history.append(accuracies)

    def accuracies(self) -> Tensor:
        return torch.stack(self.history)[..., None]

    def state_dict(self) -> dict[str, object]:
        parts = (self.model, self.criterion, self.optimizer, self.schedule)
        return {
            "parts": [part.state_dict() for part in parts],
            "history": self.history,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        parts = (self.model, self.criterion, self.optimizer, self.schedule)
        for part, saved in zip(parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        self.history = [accuracies.cpu() for accuracies in state["history"]]
        self.best = state["best"]


def train(run: Run, checkpoint: Path) -> Iterator[Tensor]:
    """Accuracies [epochs so far, (validation, test), (top-1, top-k), 1], after every epoch.

    The state after each epoch is kept in the file `checkpoint`; where there is one, training goes
    on from it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = Training(run, device)
    if checkpoint.exists():
        training.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True))
    if training.history:
        yield training.accuracies()
    while len(training.history) < run.recipe.length:
        training.epoch()
        # Written beside it first: a kill while writing leaves the last one whole.
        unfinished = checkpoint.with_suffix(".unfinished")
        torch.save(training.state_dict(), unfinished)
        unfinished.replace(checkpoint)
        yield training.accuracies()

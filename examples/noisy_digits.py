"""Cross-entropy against the smooth top-3 SVM on handwritten digits with noisy labels.

With probability p a training or validation label is redrawn, its own class included, from a group
of digits of similar shape (`--noise grouped`, the noise of Berrada, Zisserman and Kumar, 2018) or
from all ten (`--noise uniform`). Test labels are clean. Each loss is shown twice. Tuned: the
learning rate, weight decay and epoch, from one grid for both losses, with the highest mean accuracy
on the noisy validation images. Unregularised: larger learning rate, no weight decay, all epochs.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from triton_topk import smooth_svm

GROUPS = {"grouped": ((0, 6), (1, 4, 7), (2, 8), (3, 5, 9)), "uniform": (tuple(range(10)),)}
TRAIN, VALIDATION = 400, 400
HIDDEN, BATCH, EVALUATIONS = 128, 50, 20
GRID = [(1e-3, 1.0), (1e-3, 0.0), (4e-3, 1.0), (4e-3, 0.0)]  # learning rate, weight decay
TOP = (1, 3)
# Which settings of the grid, and which evaluations during training, there are to choose from.
REGIMES = {"tuned": np.s_[:, :], "unregularised": np.s_[-1:, -1:]}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": F.cross_entropy,
    "smooth SVM": partial(smooth_svm, k=3),
}
COLOURS = ("#0072b2", "#d55e00")

Results = dict[tuple[float, str, int, str], Tensor]


class Split(NamedTuple):
    """Images [seeds, samples, pixels] and labels [seeds, samples]."""

    images: Tensor
    labels: Tensor


def redraw(labels: Tensor, p: float, noise: str, generator: torch.Generator) -> Tensor:
    """Replace each label with probability p by a uniform draw from its group."""
    drawn = labels.clone()
    for group in map(torch.tensor, GROUPS[noise]):
        members = torch.isin(labels, group)
        choice = torch.randint(len(group), labels.shape, generator=generator)
        drawn[members] = group[choice][members]
    return torch.where(torch.rand(labels.shape, generator=generator) < p, drawn, labels)


def load(seeds: int, p: float, noise: str) -> tuple[Split, Split, Split]:
    """Training, validation and test split; the test images are the same for every seed."""
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pool, test = order.tensor_split([TRAIN + VALIDATION])
    shuffled, noisy = [], []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        shuffled.append(pool[torch.randperm(len(pool), generator=generator)])
        noisy.append(redraw(labels[shuffled[-1]], p, noise, generator))
    parts = images[torch.stack(shuffled)], torch.stack(noisy)
    return (
        Split(*(part[:, :TRAIN] for part in parts)),
        Split(*(part[:, TRAIN:] for part in parts)),
        Split(images[test].expand(seeds, -1, -1), labels[test].expand(seeds, -1)),
    )


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Accuracy in percent for every k of TOP and every seed."""
    hits = scores.topk(max(TOP)).indices == labels[..., None]
    return torch.stack([100 * hits[..., :k].any(-1).float().mean(-1) for k in TOP])


def train(
    p: float, loss: str, setting: tuple[float, float], *, noise: str, seeds: int, epochs: int
) -> Tensor:
    """Train one network per seed, side by side.

    Returns accuracies as [evaluations, (validation, test), TOP, seeds].
    """
    training, *held_out = load(seeds, p, noise)
    networks = [network(seed) for seed in range(seeds)]
    parameters, _ = stack_module_state(networks)
    score = partial(vmap(partial(functional_call, networks[0])), parameters)
    lr, decay = setting
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr, weight_decay=decay, fused=True)
    shuffle = torch.Generator().manual_seed(0)
    evaluate_every = max(1, epochs // EVALUATIONS)
    history = []
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(TRAIN, generator=shuffle).split(BATCH):
            optimizer.zero_grad()
            scores = score(training.images[:, batch]).flatten(0, 1)
            # `seeds` times the mean over all of them: each network sees the mean of its own batch.
            (seeds * LOSSES[loss](scores, training.labels[:, batch].flatten())).backward()
            optimizer.step()
        if epoch % evaluate_every == 0 or epoch == epochs:
            with torch.no_grad():
                history.append(torch.stack([accuracy(score(x), y) for x, y in held_out]))
    return torch.stack(history)


def select(runs: Tensor, regime: tuple[slice, slice], top: int) -> Tensor:
    """Test accuracy per seed where the mean noisy validation accuracy is highest."""
    validation, test = runs[regime][..., top, :].flatten(0, 1).unbind(1)
    return test[validation.mean(-1).argmax()]


def tabulate(results: Results, noise_rates: list[float]) -> Table:
    columns = list(product(TOP, REGIMES))
    headers = (f"top-{k} {regime}" for k, regime in columns)
    table = Table("noise", "loss", *headers, box=box.MARKDOWN)
    for p, loss in product(noise_rates, LOSSES):
        cells = [results[p, loss, k, regime] for k, regime in columns]
        formatted = (f"{cell.mean():.1f} ± {cell.std():.1f}" for cell in cells)
        table.add_row(f"{p:.0%}", loss, *formatted)
    return table


def draw(results: Results, noise_rates: list[float]) -> Figure:
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots(len(TOP), len(REGIMES), sharex=True, sharey="row")
    percent = [100 * p for p in noise_rates]
    for (k, regime), ax in zip(product(TOP, REGIMES), axes.flat, strict=True):
        for line, (loss, colour) in enumerate(zip(LOSSES, COLOURS, strict=True)):
            values = torch.stack([results[p, loss, k, regime] for p in noise_rates])
            mean, std = values.mean(-1), values.std(-1)
            ax.plot(percent, mean, "o-", color=colour, markersize=4)
            ax.fill_between(percent, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
            # Accuracy falls to the right, which leaves the lower left corner free.
            ax.text(0.04, 0.14 - 0.09 * line, loss, color=colour, transform=ax.transAxes)
        ax.set_title(f"top-{k}, {regime}", loc="left", fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.3)
    figure.supxlabel("training labels redrawn (%)")
    seeds = len(next(iter(results.values())))
    figure.supylabel(f"accuracy on clean test images (%), mean ± 1 s.d., {seeds} seeds")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--noise", choices=GROUPS, default="grouped")
    parser.add_argument("--noise-rates", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--seeds", type=int, default=5, help="how many; at least 2 for a spread")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("build/reports"))
    args = parser.parse_args()

    jobs = list(product(args.noise_rates, LOSSES, GRID))
    run = partial(train, noise=args.noise, seeds=args.seeds, epochs=args.epochs)
    # The matrices are too small to share among threads: one process per core instead.
    with ProcessPoolExecutor(None, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        trained = list(track(pool.map(run, *zip(*jobs, strict=True)), "training", len(jobs)))
    runs = torch.stack(trained).unflatten(0, (-1, len(LOSSES), len(GRID)))
    results = {
        (p, loss, k, regime): select(runs[i, j], REGIMES[regime], top)
        for (i, p), (j, loss), (top, k), regime in product(
            enumerate(args.noise_rates), enumerate(LOSSES), enumerate(TOP), REGIMES
        )
    }

    args.out.mkdir(parents=True, exist_ok=True)
    draw(results, args.noise_rates).savefig(args.out / "noisy-digits.png", dpi=200)
    console = Console(width=100, record=True)
    console.print(
        f"Test accuracy in percent, mean ± standard deviation over {args.seeds} seeds; "
        f"{args.noise} noise, {args.epochs} epochs."
    )
    console.print(tabulate(results, args.noise_rates))
    lines = console.export_text().splitlines()
    (args.out / "noisy-digits.md").write_text("\n".join(map(str.rstrip, lines)) + "\n")
    print(f"The table and a figure are in {args.out}/: noisy-digits.md, noisy-digits.png.")


if __name__ == "__main__":
    main()

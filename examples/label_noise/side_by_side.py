"""Training of one small network per seed, all at once."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from label_noise.losses import LOSSES, prunes_at, top_accuracies, total
from label_noise.runs import Run
from label_noise.small_tasks import TASKS, load


def network(seed: int, features: int, hidden: int, n_classes: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))


def train(run: Run) -> Tensor:
    """Accuracies [evaluations, (validation, test), (top-1, top-k), seeds] during training."""
    condition, recipe = run.condition, run.recipe
    task = TASKS[condition.task]
    training, *held_out = load(condition, run.seeds)
    n_seeds, n_samples, features = training.inputs.shape
    networks = [network(seed, features, recipe.hidden, task.n_classes) for seed in run.seeds]
    parameters, _ = stack_module_state(networks)
    score = partial(vmap(partial(functional_call, networks[0])), parameters)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=recipe.lr, weight_decay=recipe.decay, fused=True
    )
    criterion = LOSSES[run.loss](task.top, n_seeds * n_samples)
    samples = torch.arange(n_seeds * n_samples).unflatten(0, (n_seeds, n_samples))
    shuffle = torch.Generator().manual_seed(0)
    batches: list[Tensor] = []
    history = []
    for update in range(1, recipe.length + 1):
        if not batches:
            batches = list(torch.randperm(n_samples, generator=shuffle).split(recipe.batch))
        batch = batches.pop()
        optimizer.zero_grad()
        scores = score(training.inputs[:, batch]).flatten(0, 1)
        labels, chosen = training.labels[:, batch].flatten(), samples[:, batch].flatten()
        (total(criterion, scores, labels, chosen) / len(batch)).backward()
        optimizer.step()
        with torch.no_grad():
            if prunes_at(criterion, update, recipe.prune_from, recipe.prune_every):
                scores = score(training.inputs).flatten(0, 1)
                criterion.prune(scores, training.labels.flatten(), samples.flatten())
            if update % recipe.evaluate_every == 0:
                tops = (1, task.top)
                history.append(
                    torch.stack([top_accuracies(score(x), y, tops) for x, y in held_out])
                )
    return torch.stack(history)

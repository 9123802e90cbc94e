"""Results of training histories: test accuracy where noisy validation accuracy is highest."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from studies.significance import sign_of_difference
from torch import Tensor

from label_noise.cache import Cache
from label_noise.losses import CROSS_ENTROPY
from label_noise.runs import Condition, Run

# Which recipes of the grid, and which evaluations during training, there are to choose from.
REGIMES = {"tuned": np.s_[:, :], "to the end": np.s_[-1:, -1:]}
TOPS = (0, 1)  # top-1 and top-k: positions in the histories


class Result(NamedTuple):
    """The name of one number in a table; `top` is a position in TOPS."""

    condition: Condition
    loss: str
    top: int
    regime: str


def select(histories: Tensor, regime: str, top: int) -> Tensor:
    """Test accuracy per seed, from histories [recipes, evaluations, 2, tops, seeds].

    The recipe and the evaluation are those of the highest mean validation accuracy over the seeds.
    """
    validation, test = histories[REGIMES[regime]][..., top, :].flatten(0, 1).unbind(1)
    return test[validation.mean(-1).argmax()]


def collect(runs: Iterable[Run], cache: Cache) -> dict[Result, Tensor]:
    """Test accuracies per seed of everything that was run."""
    histories: dict[tuple[Condition, str], dict[object, list[Tensor]]] = {}
    for run in runs:
        by_recipe = histories.setdefault((run.condition, run.loss), {})
        by_recipe.setdefault(run.recipe, []).append(cache[run])
    return {
        Result(condition, loss, top, regime): select(
            torch.stack([torch.cat(seeds, -1) for seeds in by_recipe.values()]), regime, top
        )
        for (condition, loss), by_recipe in histories.items()
        for top in TOPS
        for regime in REGIMES
    }


def against_cross_entropy(results: dict[Result, Tensor], result: Result) -> int:
    """1 or -1 where a loss is significantly better or worse than cross-entropy, else 0."""
    return sign_of_difference(results[result], results[result._replace(loss=CROSS_ENTROPY)])

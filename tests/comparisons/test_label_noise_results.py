"""The label-noise example runs what it says, chooses by validation, and shows the results."""

import re
from itertools import product

import pytest
import torch
from label_noise import runs, selection
from label_noise.figures import against_fraction, against_noise
from label_noise.losses import CROSS_ENTROPY, LOSSES
from label_noise.presets import PRESETS, ImageRecipe, SmallRecipe, shortened
from label_noise.report import noise_table
from label_noise.runs import Condition


def test_every_combination_is_planned_once():
    conditions = [*runs.noisy("digits", [0, 0.4]), *runs.limited("digits", [0.1, 1])]
    planned = runs.plan(conditions, PRESETS["digits"], [(0, 1)])
    assert len(planned) == len(set(planned)) == 3 * len(LOSSES) * 4 + 2 * 4


def test_the_choice_is_by_validation_accuracy_never_by_test_accuracy():
    histories = torch.zeros(2, 3, 2, 2, 4)  # recipes, evaluations, (validation, test), tops, seeds
    histories[0, 1, 0, 0] = torch.tensor([10.0, 10, 10, 50])
    histories[1, 2, 0, 0] = 19
    histories[:, :, 1, 0] = torch.arange(6).reshape(2, 3, 1).float()
    assert selection.select(histories, "tuned", 0).tolist() == [1] * 4
    assert selection.select(histories, "to the end", 0).tolist() == [5] * 4


def test_significant_differences_are_marked():
    condition = Condition("digits")
    base = torch.tensor([80.0, 82, 78, 81, 79])
    shifts = {CROSS_ENTROPY: 0, "MAE": -3, "Lq": 3, "truncated Lq": 0, "smooth SVM": 0, "joint": 0}
    jitter = torch.tensor([0.1, -0.1, 0.2, 0, -0.2])
    results = {
        selection.Result(condition, loss, 0, "tuned"): base + shift + (jitter if shift else -jitter)
        for loss, shift in shifts.items()
    }
    table = noise_table(results, [condition], 0, "tuned")
    assert re.search(r"\| MAE +\| 77\.0 ± 1\.\d ↓ ", table)
    assert re.search(r"\| Lq +\| \*\*83\.0 ± 1\.\d\*\* ↑ ", table)
    assert re.search(r"\| joint +\| 80\.0 ± 1\.\d +\|", table)


@pytest.mark.parametrize(("seeds", "said"), [(5, "mean ± 1 s.d., 5 seeds"), (1, "1 seed")])
def test_figures_say_what_their_bars_are(seeds, said):
    accuracies = torch.linspace(80, 84, seeds)
    conditions = [*runs.noisy("digits", [0, 0.4]), Condition("digits", fraction=0.5)]
    results = {
        selection.Result(*of): accuracies
        for of in product(conditions, LOSSES, selection.TOPS, selection.REGIMES)
    }
    for figure in (
        against_noise(results, "digits", "title", 0, [0, 0.4]),
        against_fraction(results, {"digits": ["top-1", "top-3"]}, [0.5, 1]),
    ):
        assert figure.get_supylabel().endswith(f"test images (%), {said}")


def test_the_preset_is_the_paper_recipe():
    recipe = PRESETS["cifar10"][0]
    assert PRESETS["cifar100"] == PRESETS["cifar10"] == (recipe,)
    assert (recipe.lr, recipe.momentum, recipe.decay, recipe.batch) == (0.01, 0.9, 1e-4, 128)
    assert (recipe.length, recipe.milestones) == (120, (40, 80))
    assert (recipe.prune_from, recipe.prune_every, recipe.width) == (40, 10, 64)
    assert recipe.crop
    assert recipe.flip


def test_a_shortened_recipe_keeps_its_proportions():
    recipe = shortened(ImageRecipe(), 12)
    assert (recipe.length, recipe.milestones) == (12, (4, 8))
    assert (recipe.prune_from, recipe.prune_every) == (4, 1)
    recipe = shortened(SmallRecipe(1e-3, 0), 240)
    assert (recipe.evaluate_every, recipe.prune_from, recipe.prune_every) == (12, 80, 20)
    assert shortened(recipe, None) is recipe

"""Label noise, and the tasks made of digits."""

import itertools

import pytest
import torch
from label_noise import noise, small_tasks
from label_noise.losses import CROSS_ENTROPY, LOSSES
from label_noise.presets import SmallRecipe
from label_noise.runs import Condition, Run
from label_noise.side_by_side import train


def generator():
    return torch.Generator().manual_seed(0)


def test_a_label_is_redrawn_with_the_given_probability_from_its_targets():
    labels = torch.arange(6).repeat(5000)
    targets = noise.within_groups([(0, 4), (1, 2, 3), (5,)])
    noisy = noise.redraw(labels, 0.6, targets, generator())
    changed = [(noisy != labels)[labels == label].float().mean().item() for label in range(6)]
    # of the redrawn ones 1 / (size of the group) keep the old label
    assert changed == pytest.approx([0.3, 0.4, 0.4, 0.4, 0.3, 0], abs=0.03)
    assert all(
        new in targets[old] for old, new in zip(labels.tolist(), noisy.tolist(), strict=True)
    )
    assert torch.equal(noise.redraw(labels, 0, targets, generator()), labels)


def test_uniform_noise_reaches_every_class_alike():
    noisy = noise.redraw(torch.zeros(40_000).long(), 1, noise.uniform(4), generator())
    assert noisy.bincount(minlength=4) / 40_000 == pytest.approx([0.25] * 4, abs=0.01)


def test_flips_leave_other_classes_alone():
    labels = torch.arange(4)
    assert noise.redraw(labels, 1, noise.flips(4, {1: 3, 3: 0}), generator()).tolist() == [
        0,
        3,
        2,
        0,
    ]


@pytest.mark.parametrize("task", small_tasks.TASKS)
def test_no_image_is_in_two_splits(task):
    splits = small_tasks.load(Condition(task, noise.UNIFORM, 0.4), (0, 1))
    for seed in range(2):
        seen = [
            {
                image.numpy().tobytes()
                for image in split.inputs[seed].unflatten(1, (-1, 64)).flatten(0, 1)
            }
            for split in splits
        ]
        assert not any(one & other for one, other in itertools.combinations(seen, 2))


def test_labels_of_pairs_name_both_digits():
    _, _, digits = small_tasks.load(Condition("digits"), (0,))
    named = dict(zip(map(tuple, digits.inputs[0].tolist()), digits.labels[0].tolist(), strict=True))
    _, _, pairs = small_tasks.load(Condition("pairs"), (0,))
    for image, label in zip(pairs.inputs[0, :200], pairs.labels[0, :200].tolist(), strict=True):
        tens, units = (named[tuple(half.tolist())] for half in image.split(64))
        assert label == 10 * tens + units


@pytest.mark.parametrize("task", small_tasks.TASKS)
def test_noise_is_in_training_and_validation_labels_only(task):
    clean = small_tasks.load(Condition(task), (0, 1))
    noisy = small_tasks.load(Condition(task, noise.CLASS_DEPENDENT, 0.6), (0, 1))
    for before, after in zip(clean, noisy, strict=True):
        assert torch.equal(before.inputs, after.inputs)
    changed = [
        (a.labels != b.labels).float().mean().item() for a, b in zip(clean, noisy, strict=True)
    ]
    assert min(changed[:2]) > 0.3
    assert changed[2] == 0
    if task == "pairs":
        assert torch.equal(clean[0].labels // 10, noisy[0].labels // 10)


def test_less_data_is_the_beginning_of_the_same_training_split():
    whole, limited = (small_tasks.load(Condition("digits", fraction=f), (0,)) for f in (1, 0.05))
    assert torch.equal(limited[0].inputs, whole[0].inputs[:, :40])
    assert torch.equal(limited[1].inputs, whole[1].inputs)
    assert torch.equal(limited[2].labels, whole[2].labels)


@pytest.mark.parametrize("loss", LOSSES)
def test_networks_side_by_side_are_trained_as_if_alone(loss):
    recipe = SmallRecipe(0.004, 1.0, length=6, evaluate_every=3, prune_from=4, prune_every=1)
    run = Run(Condition("digits", noise.UNIFORM, 0.4), loss, recipe, (0, 1))
    together = train(run)
    alone = torch.cat([train(run._replace(seeds=(seed,))) for seed in run.seeds], -1)
    assert together.shape == (2, 2, 2, 2)
    # Rounding may decide single images: 0.5 % of the validation split, 0.13 % of the test split.
    torch.testing.assert_close(together, alone, rtol=0, atol=0.51)


def test_a_small_network_learns():
    accuracies = train(
        Run(Condition("digits"), CROSS_ENTROPY, SmallRecipe(4e-3, 0, length=96), (0, 1))
    )
    assert accuracies[-1, 1].min() > 85

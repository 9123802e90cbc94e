"""Training on image files."""

import itertools
from dataclasses import replace

import pytest
import torch
from image_files import TINY, some_pixels, write_cifar100
from label_noise import images, noise
from label_noise.losses import CROSS_ENTROPY
from label_noise.presets import ImageRecipe
from label_noise.runs import Condition, Run


def generator():
    return torch.Generator().manual_seed(0)


def test_augmented_images_are_crops_of_the_padded_image_or_of_its_mirror_image():
    original = torch.from_numpy(some_pixels(40, (3, 9, 7)))
    augmented = images.augment(original, ImageRecipe(), generator())
    padded = torch.nn.functional.pad(original, (4,) * 4)
    seen = set()
    for image, around in zip(augmented, padded, strict=True):
        places = {
            (row, column, mirrored)
            for row, column, mirrored in itertools.product(range(9), range(9), (False, True))
            if torch.equal(
                image.flip(2) if mirrored else image,
                around[:, row : row + 9, column : column + 7],
            )
        }
        assert len(places) == 1
        seen |= places
    assert len(seen) > 25
    assert {mirrored for *_, mirrored in seen} == {False, True}
    untouched = replace(ImageRecipe(), crop=False, flip=False)
    assert torch.equal(images.augment(original, untouched, generator()), original)


@pytest.mark.exhaustive
@pytest.mark.parametrize("loss", [CROSS_ENTROPY, "truncated Lq"])
def test_a_killed_training_goes_on_after_its_last_epoch(tmp_path, loss):
    write_cifar100(tmp_path, n=100)
    run = Run(Condition("cifar100", noise.UNIFORM, 0.4), loss, TINY, (0,), str(tmp_path))
    *_, whole = images.train(run, tmp_path / "whole.pt")
    assert whole.shape == (3, 2, 2, 1)
    first = next(images.train(run, tmp_path / "killed.pt"))
    (tmp_path / "killed.unfinished").write_bytes(b"half a checkpoint")
    resumed = list(images.train(run, tmp_path / "killed.pt"))
    assert [len(accuracies) for accuracies in resumed] == [1, 2, 3]
    assert torch.equal(resumed[0], first)
    assert torch.equal(resumed[-1], whole)
    one, other = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "killed"))
    for expected, actual in zip(one["parts"], other["parts"], strict=True):
        torch.testing.assert_close(actual, expected)


def test_the_learning_rate_falls_at_the_milestones(tmp_path):
    write_cifar100(tmp_path, n=100)
    recipe = replace(TINY, milestones=(1, 2))
    run = Run(Condition("cifar100"), CROSS_ENTROPY, recipe, (0,), str(tmp_path))
    training = images.Training(run, torch.device("cpu"))
    rates = []
    for _ in range(3):
        rates.append(training.optimizer.param_groups[0]["lr"])
        training.epoch()
    assert rates == pytest.approx([0.01, 0.001, 0.0001])


def test_pruning_is_by_the_network_that_was_best_on_validation(tmp_path):
    write_cifar100(tmp_path, n=100)
    recipe = replace(TINY, prune_from=2, prune_every=1)
    run = Run(Condition("cifar100"), "truncated Lq", recipe, (0,), str(tmp_path))
    training = images.Training(run, torch.device("cpu"))
    training.epoch()
    assert training.criterion.kept_fraction == 1
    best = {name: value.clone() for name, value in training.best.items()}
    training.history[0][0, 0] = 100  # better than anything to come
    training.criterion.truncation = 0.01
    training.epoch()
    assert all(torch.equal(value, best[name]) for name, value in training.best.items())
    probabilities = training.scores(best, training.train.images).softmax(1)
    of_labels = probabilities.gather(1, training.train.labels[:, None])[:, 0]
    assert torch.equal(training.criterion.kept > 0, of_labels > 0.01)
    assert 0 < training.criterion.kept_fraction < 1

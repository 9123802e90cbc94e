import gzip
import importlib.util
import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from label_noise import archives, images, noise, runs, selection, small_tasks  # noqa: E402
from label_noise.cache import Cache, key_of  # noqa: E402
from label_noise.figures import spread  # noqa: E402
from label_noise.losses import CROSS_ENTROPY, LOSSES  # noqa: E402
from label_noise.presets import PRESETS, ImageRecipe, SmallRecipe, shortened  # noqa: E402
from label_noise.report import noise_table  # noqa: E402
from label_noise.runs import Condition, Run  # noqa: E402
from label_noise.side_by_side import train  # noqa: E402

COMMAND = EXAMPLES / "label_noise.py"
TINY = replace(ImageRecipe(), width=8, batch=20, length=3, prune_from=1, prune_every=1)


def generator():
    return torch.Generator().manual_seed(0)


# Noise


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


# The small tasks


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


# Choosing and comparing


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


def test_names_of_lines_keep_their_distance():
    assert spread([3, 1, 1.5, 1.3], 1) == pytest.approx([3.2, 0.2, 2.2, 1.2])
    assert spread([1, 5, 9], 1) == [1, 5, 9]


# Presets


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


# The cache


def run_of(**changes):
    return Run(Condition("digits"), "Lq", SmallRecipe(1e-3, 0), (0, 1))._replace(**changes)


def test_a_key_has_every_setting():
    different = [
        run_of(),
        run_of(loss="MAE"),
        run_of(seeds=(0, 2)),
        run_of(root="elsewhere"),
        run_of(condition=Condition("digits", noise.UNIFORM, 0.2)),
        run_of(condition=Condition("digits", fraction=0.5)),
        run_of(recipe=ImageRecipe()),
        *(
            run_of(recipe=replace(SmallRecipe(1e-3, 0), **{field: 7}))
            for field in asdict(SmallRecipe(1e-3, 0))
        ),
    ]
    assert len({key_of(run) for run in different}) == len(different)


def test_results_come_back_and_half_a_line_does_no_harm(tmp_path):
    accuracies = torch.rand(3, 2, 2, 2) * 100
    cache = Cache(tmp_path)
    cache[run_of()] = accuracies
    cache[run_of(loss="MAE")] = accuracies + 1
    lines = (tmp_path / "runs.jsonl").read_text()
    (tmp_path / "runs.jsonl").write_text(lines[:-30])

    cache = Cache(tmp_path)
    assert torch.equal(cache[run_of()], accuracies)
    assert run_of(loss="MAE") not in cache
    cache[run_of(loss="joint")] = accuracies + 2
    assert torch.equal(Cache(tmp_path)[run_of(loss="joint")], accuracies + 2)


# The command


SHORT = "--data digits --noise-rates 0.4 --fractions 0.25 --seeds 2 --length 20 --workers 1 --out"


def load_command():
    spec = importlib.util.spec_from_file_location("label_noise_command", COMMAND)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    return command


def finished(out):
    cache = out / ".label-noise-cache" / "runs.jsonl"
    return cache.read_text().splitlines() if cache.exists() else []


def test_a_killed_command_goes_on_where_it_was(tmp_path):
    arguments = [sys.executable, COMMAND, *SHORT.split(), tmp_path]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        while len(finished(tmp_path)) < 10:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    with (tmp_path / ".label-noise-cache" / "runs.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    before = finished(tmp_path)[:-1]
    assert not (tmp_path / "label-noise-digits.md").exists()

    subprocess.run(arguments, check=True, timeout=300, stdout=subprocess.DEVNULL)
    lines = finished(tmp_path)
    assert lines[: len(before)] == before
    command = load_command()
    planned = command.plan(command.parse([*SHORT.split(), str(tmp_path)]))
    assert len(lines) == len(planned) == 2 * len(LOSSES) * 4 + 2 * 4
    assert {json.loads(line)["key"] for line in lines} == set(map(key_of, planned))
    # each the result of its own run, finished before the kill or after it
    cache = Cache(tmp_path / ".label-noise-cache")
    for run in planned[::5]:
        torch.testing.assert_close(cache[run], train(run), rtol=0, atol=0.51)

    report = (tmp_path / "label-noise-digits.md").read_text()
    accuracies = [float(mean) for mean in re.findall(r"([\d.]+) ± [\d.]+", report)]
    # (losses x conditions + two losses x fractions) x (top-1, top-k) x regimes
    assert len(accuracies) == (len(LOSSES) * 2 + 2 * 1) * 2 * 2
    assert max(accuracies) > 75
    for figure in re.findall(r"\((.*\.png)\)", report):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "wrong", ["--noise-rates 1.5", "--fractions 0", "--seeds 0", "--length -1", "--data mnist"]
)
def test_wrong_arguments_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        load_command().parse(wrong.split())
    assert re.search(rf"error: .*{wrong.split()[0]}: ", capsys.readouterr().err)


def test_image_files_go_through_the_same_command(tmp_path, monkeypatch):
    write_cifar100(tmp_path, n=100)
    command = load_command()
    monkeypatch.setitem(PRESETS, "cifar100", (TINY,))
    settings = "--data cifar100 --noise-rates 0 --fractions --seeds 1 --length 1 --root"
    monkeypatch.setattr(
        sys, "argv", ["", *settings.split(), *(str(tmp_path), "--out", str(tmp_path))]
    )
    command.main()
    report = (tmp_path / "label-noise-cifar100.md").read_text()
    assert "| no noise" in report
    assert len(finished(tmp_path)) == len(LOSSES)
    assert not list((tmp_path / ".label-noise-cache").glob("*.pt"))

    (tmp_path / "label-noise-cifar100.md").write_text(f"What it means.\n\n{report}")
    monkeypatch.setattr(images, "train", None)  # nothing is left to train
    command.main()
    kept, _, written = (tmp_path / "label-noise-cifar100.md").read_text().partition("<!--")
    assert kept == "What it means.\n\n# Label noise\n\n"
    assert written == report.partition("<!--")[2]


# Image files


def some_pixels(n, shape):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_cifar100(root, n=200):
    folder = root / "cifar-100-python"
    folder.mkdir()
    labels = [i % 100 for i in range(n)]
    batch = {
        b"data": some_pixels(n, (3072,)),
        b"fine_labels": labels,
        b"coarse_labels": [label // 5 for label in labels],
    }
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def write_cifar10_archive(root):
    batches = {}
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        batch = {b"data": some_pixels(4, (3072,)) + np.uint8(i), b"labels": [i, 1, 2, 3]}
        # as numpy 1 wrote them
        written = pickle.dumps(batch, protocol=2).replace(b"numpy._core", b"numpy.core")
        (root / name).write_bytes(written)
        batches[name] = batch
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name in batches:
            tar.add(root / name, f"cifar-10-batches-py/{name}")
    return batches


def test_cifar10_is_read_from_its_archive(tmp_path):
    batches = write_cifar10_archive(tmp_path)
    train, test = archives.cifar10(tmp_path)
    assert train.images.shape == (20, 3, 32, 32)
    assert train.labels.tolist() == [label for i in range(5) for label in (i, 1, 2, 3)]
    expected = batches["data_batch_2"][b"data"][3].reshape(3, 32, 32)
    assert np.array_equal(train.images[7].numpy(), expected)
    assert test.labels.tolist() == [5, 1, 2, 3]


def test_cifar100_noise_stays_in_the_superclass(tmp_path):
    write_cifar100(tmp_path)
    recipe = replace(TINY, validation=0.25)
    condition = Condition("cifar100", noise.CLASS_DEPENDENT, 1.0, 0.5)
    run = Run(condition, "Lq", recipe, (0,), str(tmp_path))
    clean = run._replace(condition=condition._replace(rate=0))
    (train, validation, test), (before, _, _) = images.load(run), images.load(clean)
    assert [len(split.labels) for split in (train, validation, test)] == [75, 50, 200]
    assert torch.equal(train.images, before.images)
    assert torch.equal(train.labels // 5, before.labels // 5)
    assert (train.labels != before.labels).float().mean() > 0.6
    assert test.labels.tolist() == [i % 100 for i in range(200)]


@pytest.mark.parametrize("compressed", [False, True])
def test_fashion_mnist_is_read_from_idx_files(tmp_path, compressed):
    pixels = some_pixels(6, (28, 28))
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", np.arange(6, dtype=np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = header + array.tobytes()
            name = f"{part}-{kind}-ubyte"
            if compressed:
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (tmp_path / name).write_bytes(content)
    for split in archives.fashion_mnist(tmp_path):
        assert np.array_equal(split.images.numpy(), pixels[:, None])
        assert split.labels.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("load", "looked_for"),
    [
        (
            archives.cifar10,
            "neither .*cifar-10-python.tar.gz nor .*cifar-10-batches-py/data_batch_1",
        ),
        (archives.cifar100, "neither .*cifar-100-python.tar.gz nor .*cifar-100-python/train"),
        (archives.fashion_mnist, "neither .*train-images-idx3-ubyte nor .*idx3-ubyte.gz"),
    ],
)
def test_missing_files_are_named(tmp_path, load, looked_for):
    with pytest.raises(FileNotFoundError, match=looked_for):
        load(tmp_path)


def test_an_archive_without_its_batches_is_an_error(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz"):
        pass
    with pytest.raises(FileNotFoundError, match="has no cifar-10-batches-py/data_batch_1"):
        archives.cifar10(tmp_path)


class Malicious:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capfd):
    (tmp_path / "cifar-100-python").mkdir()
    content = pickle.dumps({b"data": Malicious()}, protocol=2)
    (tmp_path / "cifar-100-python" / "train").write_bytes(content)
    with pytest.raises(pickle.UnpicklingError, match="system"):
        archives.cifar100(tmp_path)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found", "not an IDX file"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 9, 1, 2]), r"has 2 values, and by its header \[9\]"),
    ],
)
def test_broken_idx_files_are_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        archives.read_idx(tmp_path / "file")


# Training on image files


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
    assert torch.equal(training.criterion.kept, of_labels > 0.01)
    assert 0 < training.criterion.kept_fraction < 1


def test_every_combination_is_planned_once():
    conditions = [*runs.noisy("digits", [0, 0.4]), *runs.limited("digits", [0.1, 1])]
    planned = runs.plan(conditions, PRESETS["digits"], [(0, 1)])
    assert len(planned) == len(set(planned)) == 3 * len(LOSSES) * 4 + 2 * 4

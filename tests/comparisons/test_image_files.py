"""Loaders of image files."""

import gzip
import os
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_files import TINY, some_pixels, write_cifar10_archive, write_cifar100
from label_noise import archives, images, noise
from label_noise.runs import Condition, Run


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

"""Tiny files in the formats of the real ones, and a recipe to match."""

import pickle
import tarfile
from dataclasses import replace

import numpy as np
from label_noise.presets import ImageRecipe

TINY = replace(ImageRecipe(), width=8, batch=20, length=3, prune_from=1, prune_every=1)


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

"""Image files as their authors distribute them: CIFAR's python archives and IDX files."""

import gzip
import io
import math
import pickle
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

IDX_BYTES = b"\0\0\x08"


class Images(NamedTuple):
    """Images [samples, channels, height, width] of bytes and labels [samples].

    `groups`: the superclass of each sample [samples], where the files name one.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor | None = None


class ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays and builtin containers, and nothing that could run code."""

    ALLOWED = frozenset(
        {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            # as numpy 1 writes it, and the archives have it
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"expected a CIFAR batch of arrays and lists, found {module}.{name} in the pickle"
            )
        return super().find_class(module, name)


def read_batch(root: Path, archive: str, member: str) -> dict[bytes, Any]:
    """A pickled batch from the extracted folder or, without it, from the archive."""
    file, packed = root / member, root / archive
    if file.exists():
        content = file.read_bytes()
    elif packed.exists():
        with tarfile.open(packed) as tar:
            if member not in tar.getnames():
                raise FileNotFoundError(f"{packed} has no {member}")
            content = tar.extractfile(member).read()
    else:
        raise FileNotFoundError(f"neither {packed} nor {file} exists")
    return ArraysOnly(io.BytesIO(content), encoding="bytes").load()


def joined(batches: list[dict[bytes, Any]], key: bytes) -> Tensor:
    return torch.tensor([label for batch in batches for label in batch[key]])


def pixels(batches: list[dict[bytes, Any]]) -> Tensor:
    rows = np.concatenate([batch[b"data"] for batch in batches])
    return torch.from_numpy(rows).unflatten(1, (3, 32, 32))


def cifar10(root: Path) -> tuple[Images, Images]:
    """Training and test images of cifar-10-python.tar.gz or its folder cifar-10-batches-py."""

    def read(names: list[str]) -> Images:
        members = [f"cifar-10-batches-py/{name}" for name in names]
        batches = [read_batch(root, "cifar-10-python.tar.gz", member) for member in members]
        return Images(pixels(batches), joined(batches, b"labels"))

    return read([f"data_batch_{i}" for i in range(1, 6)]), read(["test_batch"])


def cifar100(root: Path) -> tuple[Images, Images]:
    """Training and test images of cifar-100-python.tar.gz or its folder cifar-100-python."""

    def read(name: str) -> Images:
        batch = [read_batch(root, "cifar-100-python.tar.gz", f"cifar-100-python/{name}")]
        return Images(pixels(batch), joined(batch, b"fine_labels"), joined(batch, b"coarse_labels"))

    return read("train"), read("test")


def read_idx(path: Path) -> Tensor:
    """An array of bytes in the IDX format, compressed or not."""
    packed = path.with_name(f"{path.name}.gz")
    if path.exists():
        content = path.read_bytes()
    elif packed.exists():
        content = gzip.decompress(packed.read_bytes())
    else:
        raise FileNotFoundError(f"neither {path} nor {packed} exists")
    if content[:3] != IDX_BYTES:
        raise ValueError(f"{path} is not an IDX file of bytes: it starts with {content[:4]!r}")
    dims = content[3]
    shape = np.frombuffer(content, ">u4", dims, offset=4).tolist()
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dims)
    if len(values) != math.prod(shape):
        raise ValueError(f"{path} has {len(values)} values, and by its header {shape}")
    return torch.from_numpy(values.reshape(shape).copy())


def fashion_mnist(root: Path) -> tuple[Images, Images]:
    """Training and test images of the four files train-images-idx3-ubyte.gz and so on."""

    def read(part: str) -> Images:
        images = read_idx(root / f"{part}-images-idx3-ubyte")
        return Images(images[:, None], read_idx(root / f"{part}-labels-idx1-ubyte").long())

    return read("train"), read("t10k")

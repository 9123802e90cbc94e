"""A classifier whose classes are sharded over the processes, beside the same one on a single process.

    torchrun --nproc-per-node 2 examples/sharded_classes.py

Every process encodes its share of the samples and has the classifier's weight for its share of the classes. It gathers
the features of all samples, computes the scores of its classes, and gives the loss the labels of all samples. No
process has the scores of all classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from triton_topk import ClassShard, smooth_svm

SAMPLES, INPUTS, FEATURES, CLASSES, STEPS = 60, 30, 16, 101, 20


class Gather(torch.autograd.Function):
    """The features of all samples are gathered; their gradient is the sum of what each process's classes contribute."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        parts = [torch.empty_like(features) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, features)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def networks() -> tuple[nn.Module, Tensor]:
    """The encoder and the weight of all classes, the same on every process."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(INPUTS, FEATURES), nn.Tanh())
    return encoder, torch.randn(CLASSES, FEATURES) / FEATURES**0.5


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    patterns = torch.randn(CLASSES, INPUTS, generator=generator)
    return patterns[labels] + 0.3 * torch.randn(SAMPLES, INPUTS, generator=generator), labels


def train_alone() -> list[float]:
    """The losses of a process with all samples and all classes."""
    (encoder, weight), (inputs, labels) = networks(), samples()
    weight.requires_grad_()
    optimizer = torch.optim.Adam([*encoder.parameters(), weight], lr=0.05)
    losses = []
    for _ in range(STEPS):
        loss = smooth_svm(encoder(inputs) @ weight.T, labels, k=5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_sharded() -> list[float]:
    """The losses of processes with a share of the samples and of the classes each."""
    (encoder, weight), (inputs, labels) = networks(), samples()
    ranks, rank = dist.get_world_size(), dist.get_rank()
    inputs = inputs.chunk(ranks)[rank]
    shard = ClassShard.even(CLASSES)
    weight = weight[shard.start : shard.start + shard.size].clone().requires_grad_()
    optimizer = torch.optim.Adam([*encoder.parameters(), weight], lr=0.05)
    losses = []
    for _ in range(STEPS):
        features = Gather.apply(encoder(inputs))
        loss = smooth_svm(features @ weight.T, labels, k=5, shard=shard)
        optimizer.zero_grad()
        loss.backward()
        # each process's samples contribute to the encoder, whose weights are everywhere
        for parameter in encoder.parameters():
            dist.all_reduce(parameter.grad)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    dist.init_process_group("gloo")
    sharded, alone = train_sharded(), train_alone()
    if dist.get_rank() == 0:
        for step, (a, b) in enumerate(zip(sharded, alone, strict=True)):
            print(f"step {step}: loss {a:.5f}, alone {b:.5f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

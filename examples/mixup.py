"""The smooth top-k SVM with mixup and CutMix: a mixed image has two labels, each with a share of the loss.

Mixup: Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018, https://arxiv.org/abs/1710.09412.
CutMix: Yun, Han, Oh, Chun, Choe, Yoo, ICCV 2019, https://arxiv.org/abs/1905.04899.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triton_topk.nn import SmoothSVMLoss

IMAGES, SIZE, CLASSES = 512, 12, 10
SHARES = torch.distributions.Beta(1.0, 1.0)


def mixup(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image mixed with another, and its share (N, 1), which differs from image to image."""
    share = SHARES.sample((len(images), 1))
    of_pixels = share[:, :, None, None]
    return of_pixels * images + (1 - of_pixels) * others, share


def cutmix(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image with a box of another pasted in, and the share (N, 1) of the area that is left of it."""
    side = int(SIZE * (1 - SHARES.sample()).sqrt())
    top, left = torch.randint(SIZE - side + 1, (2,)).tolist()
    mixed = images.clone()
    box = (..., slice(top, top + side), slice(left, left + side))
    mixed[box] = others[box]
    return mixed, torch.full((len(images), 1), 1 - (side / SIZE) ** 2)


def loss_of_both(
    criterion: nn.Module, scores: Tensor, labels: Tensor, others: Tensor, share: Tensor
) -> Tensor:
    """Return the mean over the images of share times the loss for the one label, the rest times that for the other."""
    count = len(labels)
    of_labels: Tensor = criterion(scores, labels, weight=share, normalizer=count)
    of_others: Tensor = criterion(scores, others, weight=1 - share, normalizer=count)
    return of_labels + of_others


def samples() -> tuple[Tensor, Tensor]:
    """A pattern for each class, with noise."""
    patterns = torch.randn(CLASSES, 1, SIZE, SIZE)
    labels = torch.randint(CLASSES, (IMAGES,))
    return patterns[labels] + 2 * torch.randn(IMAGES, 1, SIZE, SIZE), labels


def main() -> None:
    torch.manual_seed(0)
    images, labels = samples()
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    criterion = SmoothSVMLoss(k=3)
    for epoch in range(8):
        total = torch.zeros(())
        for batch, indices in enumerate(torch.randperm(IMAGES).split(32)):
            x, y = images[indices], labels[indices]
            mix = cutmix if batch % 2 else mixup
            mixed, share = mix(x, x.flip(0))
            loss = loss_of_both(criterion, model(mixed), y, y.flip(0), share)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(y)
        with torch.no_grad():
            accuracy = (model(images).argmax(1) == labels).float().mean()
        print(f"epoch {epoch}: loss {total / IMAGES:.3f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()

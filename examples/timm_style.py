"""The smooth top-k SVM as train_loss_fn of a training loop like timm's.

With automatic mixed precision and a gradient scaler, gradient clipping, and an exponential moving average of the
weights. In timm's own train.py, make the module where train_loss_fn is made. Labels have to be classes: mixup.py has
mixup, and docs/pytorch.md says how the pair of labels is read from the targets of timm's Mixup.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from triton_topk.nn import SmoothSVMLoss

IMAGES, SIZE, CLASSES = 512, 12, 10
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_one_epoch(
    model: nn.Module,
    loader: DataLoader[tuple[Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    train_loss_fn: nn.Module,
    scaler: torch.amp.GradScaler,
    model_ema: AveragedModel,
) -> float:
    """The mean loss of the epoch."""
    model.train()
    total = torch.zeros((), device=DEVICE)
    for images, labels in loader:
        images, labels = images.to(DEVICE), labels.to(DEVICE)
        with torch.autocast(DEVICE.type, dtype=torch.float16):
            # float16 scores are fine: the loss computes in float32.
            loss = train_loss_fn(model(images), labels)

        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        scaler.step(optimizer)
        scaler.update()
        model_ema.update_parameters(model)
        total += loss.detach() * len(labels)
    return float(total) / len(loader.dataset)


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Top-1 accuracy."""
    model.eval()
    right = [(model(x.to(DEVICE)).argmax(1) == y.to(DEVICE)).float() for x, y in loader]
    return float(torch.cat(right).mean())


def samples() -> TensorDataset:
    """A pattern for each class, with noise."""
    patterns = torch.randn(CLASSES, 1, SIZE, SIZE)
    labels = torch.randint(CLASSES, (IMAGES,))
    return TensorDataset(patterns[labels] + torch.randn(IMAGES, 1, SIZE, SIZE), labels)


def main() -> None:
    torch.manual_seed(0)
    loader = DataLoader(samples(), batch_size=32, shuffle=True)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(16 * (SIZE // 4) ** 2, CLASSES),
    ).to(DEVICE)
    model_ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    scaler = torch.amp.GradScaler(DEVICE.type)
    train_loss_fn = SmoothSVMLoss(k=3).to(DEVICE)
    for epoch in range(8):
        loss = train_one_epoch(model, loader, optimizer, train_loss_fn, scaler, model_ema)
        accuracy = validate(model_ema, loader)
        print(f"epoch {epoch}: loss {loss:.3f}, accuracy of the moving average {accuracy:.3f}")


if __name__ == "__main__":
    main()

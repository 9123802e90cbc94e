"""The smooth top-k SVM in PyTorch Lightning, with the training accuracy that its kernel finds on the way."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from triton_topk.nn import SmoothSVMLoss

SAMPLES, FEATURES, CLASSES = 512, 16, 20


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, CLASSES))
        self.loss = SmoothSVMLoss(k=3, return_topk_hits=True)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        features, labels = batch
        loss, hits = self.loss(self.network(features), labels)
        metrics = {"loss": loss, "top1": hits.top1.float().mean(), "top3": hits.topk.float().mean()}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def on_train_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics
        self.print(", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def samples() -> TensorDataset:
    """A cloud for each class, which overlaps with others."""
    centres = torch.randn(CLASSES, FEATURES)
    labels = torch.randint(CLASSES, (SAMPLES,))
    return TensorDataset(centres[labels] + torch.randn(SAMPLES, FEATURES), labels)


def main() -> None:
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), DataLoader(samples(), batch_size=32, shuffle=True))


if __name__ == "__main__":
    main()

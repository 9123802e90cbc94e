"""The smooth top-k SVM in Hugging Face's Trainer, with gradients accumulated over batches.

A small transformer learns a class for every token of random sentences. Padding is labelled -100, so batches hold
different numbers of labels. The Trainer counts those of all batches of a step, and the loss divides by that: however
a step is divided into batches, it is the same step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, StackDataset
from transformers import (
    BertConfig,
    BertForTokenClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import TokenClassifierOutput

from triton_topk import smooth_svm

SENTENCES, TOKENS, WORDS, CLASSES = 128, 12, 60, 20


def loss(
    outputs: TokenClassifierOutput, labels: Tensor, num_items_in_batch: Tensor | None = None
) -> Tensor:
    """The Trainer calls this with the number of labels in all batches of a step."""
    classes_first = outputs.logits.transpose(1, 2)
    return smooth_svm(classes_first, labels, k=3, normalizer=num_items_in_batch)


def sentences() -> Dataset[dict[str, Tensor]]:
    words = torch.randint(WORDS, (SENTENCES, TOKENS))
    length = torch.randint(2, TOKENS + 1, (SENTENCES, 1))
    padding = torch.arange(TOKENS) >= length
    labels = (words % CLASSES).masked_fill(padding, -100)
    return StackDataset(input_ids=words, attention_mask=(~padding).long(), labels=labels)


def model() -> BertForTokenClassification:
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=TOKENS,
        num_labels=CLASSES,
        # Random numbers would depend on how a step is divided.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForTokenClassification(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=4, help="batches in a step")
    parser.add_argument("--out", type=Path, default=Path("hugging-face-trainer"))
    args = parser.parse_args()

    set_seed(0)
    trainer = Trainer(
        model(),
        TrainingArguments(
            output_dir=str(args.out),
            per_device_train_batch_size=args.batch,
            gradient_accumulation_steps=args.accumulate,
            num_train_epochs=8,
            optim="sgd",
            learning_rate=2.0,
            logging_strategy="epoch",
            dataloader_pin_memory=False,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=sentences(),
        compute_loss_func=loss,
    )
    trainer.train()
    trainer.save_model()
    for entry in trainer.state.log_history:
        if "loss" in entry:
            print(f"epoch {entry['epoch']:.0f}: loss {entry['loss']:.3f}")


if __name__ == "__main__":
    main()

"""Dataset and LightningModule of the reference script."""

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy

from grulab.field_types import SPLITS, Split
from grulab.tasks.base import DataConfig
from grulab.tasks.registry import build_task

Batch = tuple[Tensor, Tensor, Tensor]


class SequenceDataset(Dataset[tuple[Tensor, int]]):
    """A dataset of single sequences."""

    def __init__(self, data: DataConfig, split: Split, size: int) -> None:
        self.sequences = build_task(data).generate(data.seed, split, np.arange(size))

    def __len__(self) -> int:
        return len(self.sequences.lengths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        length = self.sequences.lengths[index]
        return torch.from_numpy(self.sequences.features[index, :length]), int(self.sequences.classes[index])


def collate(samples: list[tuple[Tensor, int]]) -> Batch:
    """Pad sequences to the longest one."""
    sequences = [sequence for sequence, _ in samples]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return pad_sequence(sequences, batch_first=True), lengths, torch.tensor([label for _, label in samples])


def make_loaders(data: DataConfig) -> dict[Split, DataLoader[tuple[Tensor, int]]]:
    """Return a loader for each split."""
    return {
        split: DataLoader(
            SequenceDataset(data, split, build_task(data).size(split)),
            batch_size=data.batch_size,
            shuffle=split == "train",
            collate_fn=collate,
        )
        for split in SPLITS
    }


class GRUModule(L.LightningModule):
    """A GRU, a head, and metrics logged in each step."""

    def __init__(
        self,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        lr: float,
        num_features: int = 5,
        num_classes: int = 3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.gru = nn.GRU(num_features, hidden_size, num_layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(hidden_size * (1 + bidirectional), num_classes)
        self.lr = lr
        self.train_accuracy, self.val_accuracy, self.test_accuracy = (
            MulticlassAccuracy(num_classes) for _ in range(3)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, h_n = self.gru(packed)
        directions = 2 if self.gru.bidirectional else 1
        logits: Tensor = self.head(torch.cat(list(h_n[-directions:]), dim=-1))
        return logits

    def _step(self, batch: Batch, name: str) -> Tensor:
        x, lengths, y = batch
        logits = self(x, lengths)
        loss = F.cross_entropy(logits, y)
        accuracy = getattr(self, f"{name}_accuracy")
        accuracy(logits, y)
        self.log(f"{name}/loss", loss, prog_bar=True, batch_size=len(y))
        self.log(f"{name}/accuracy", accuracy, prog_bar=True, on_epoch=True, batch_size=len(y))
        return loss

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Train on a batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Validate on a batch."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Test on a batch."""
        self._step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

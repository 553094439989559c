"""Build the LightningModule and the Trainer of a run from its configuration."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch

from grulab.config.schema import Config
from grulab.internals.lightning import OneProcess
from grulab.kernels.backend import backend_of_weights
from grulab.models.chrono import set_chrono_biases
from grulab.run_folder.checkpoint_file import ChecksummedCheckpointIO
from grulab.run_folder.tensorboard_logger import RunLogger
from grulab.tasks.base import Task
from grulab.training.module import SequenceClassifier
from grulab.training.stored_task import StoredTask

# Warnings of Lightning and torch that say nothing about the run, or nothing new.
_IGNORED_WARNINGS = (
    ".*does not have many workers",
    ".*smaller than the logging interval",
    # The sampler restores the position of a resumed run; Lightning expects the DataLoader to do it.
    ".*your dataloader is not resumable",
    ".*isinstance.treespec, LeafSpec.",
    # A run on the processor is what trainer.accelerator=cpu asks for.
    ".*GPU available but not used",
    # One of grulab's notes says it.
    ".*This DataLoader will create .* worker processes",
    # A run is one process, with or without srun.
    ".*The `srun` command is available on your system but is not used",
)


def build_module(config: Config, task: Task | StoredTask) -> SequenceClassifier:
    """Return the untrained module for a configuration; the task gives the input size and the number of classes."""
    module = SequenceClassifier(
        input_size=task.num_features,
        hidden_size=config.model.hidden_size,
        num_layers=config.model.num_layers,
        num_classes=task.num_classes,
        bidirectional=config.model.bidirectional,
        dropout=config.model.dropout,
        backend=backend_of_weights(config),
        sequences=config.model.sequences,
        algorithm=config.optimizer.algorithm,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        schedule=config.optimizer.schedule,
        horizon=config.optimizer.horizon,
        class_weights=_class_weights(config, task),
    )
    # The weights of a model whose task is stored come from its checkpoint.
    if config.model.update_bias == "chrono" and isinstance(task, Task):
        set_chrono_biases(module.model.gru, config.model.chrono_length or task.length_range[1])
    if config.trainer.precision == "64-true":
        # Lightning restores the weights before it converts the module, which would round them to 32 bits.
        module.double()
    return module


def _class_weights(config: Config, task: Task | StoredTask) -> list[float] | None:
    """Return weights that give every class the same share of the training loss, as scikit-learn's "balanced" does."""
    counts = task.class_counts("train") if config.model.class_weights == "balanced" else None
    return None if counts is None else [sum(counts) / (len(counts) * count) for count in counts]


def build_trainer(
    config: Config, accelerator: str, run_dir: Path, logger: RunLogger, callbacks: Sequence[L.Callback]
) -> L.Trainer:
    """Return the Trainer of a run, with the given callbacks in place of Lightning's default ones."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    set_tf32(config)
    trainer = L.Trainer(
        max_epochs=config.trainer.max_epochs,
        accelerator=accelerator,
        # A list selects a CUDA device; the CPU and MPS have a single device.
        devices=config.trainer.devices if accelerator == "cuda" else 1,
        precision=config.trainer.precision,
        gradient_clip_val=config.trainer.gradient_clip_val,
        deterministic=config.trainer.deterministic,
        default_root_dir=run_dir,
        logger=logger,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=[OneProcess(), ChecksummedCheckpointIO()],
    )
    # Filling protects operators that read memory before they write it. No operator here does, and filling costs a
    # pass over each new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer


def set_tf32(config: Config) -> None:
    """Turn TF32 on or off in this process: it is on by default in cuDNN's GRU, and read at each call of it."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = config.trainer.tf32

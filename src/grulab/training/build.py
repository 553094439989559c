"""The parts of a run, made from its configuration: the LightningModule and the Trainer."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from grulab.config.schema import Config
from grulab.kernels.backend import backend_of_weights
from grulab.run_folder.checkpoint_file import ChecksummedCheckpointIO
from grulab.run_folder.tensorboard import RunLogger
from grulab.tasks.base import Task
from grulab.training.module import SequenceClassifier

# Lightning's remarks on itself, which say nothing about the run.
_IGNORED_WARNINGS = (
    ".*does not have many workers",
    ".*smaller than the logging interval",
    # The sampler knows the position of a resumed run; Lightning looks for it in the loader.
    ".*your dataloader is not resumable",
    ".*isinstance.treespec, LeafSpec.",
)


def build_module(config: Config, task: Task) -> SequenceClassifier:
    """Return the untrained module of a configuration, with the sizes of its task."""
    return SequenceClassifier(
        input_size=task.num_features,
        hidden_size=config.model.hidden_size,
        num_layers=config.model.num_layers,
        num_classes=task.num_classes,
        bidirectional=config.model.bidirectional,
        dropout=config.model.dropout,
        backend=backend_of_weights(config),
        algorithm=config.optimizer.algorithm,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        schedule=config.optimizer.schedule,
    )


def build_trainer(
    config: Config, accelerator: str, run_dir: Path, logger: RunLogger, callbacks: Sequence[L.Callback]
) -> L.Trainer:
    """Return the Trainer of a run: Lightning's loops, and our own callbacks for everything around them."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    trainer = L.Trainer(
        max_epochs=config.trainer.max_epochs,
        accelerator=accelerator,
        # A list names a CUDA device; of the others there is one.
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
        # Otherwise, under SLURM, Lightning would requeue the job itself when it is told to stop.
        plugins=[LightningEnvironment(), ChecksummedCheckpointIO()],
    )
    # A guard for operators that read memory before they write it: nothing here does, and it costs a pass over each
    # new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer

"""One run, top to bottom: build, fit, test with the best checkpoint, summarise."""

import csv
import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch

from grulab.accelerator import find_accelerator
from grulab.config import Config, ConfigError
from grulab.data.datamodule import SequenceDataModule
from grulab.folders import shown
from grulab.models.classifier import SequenceClassifier
from grulab.tracking import checkpoints, recorder
from grulab.tracking.checkpoints import RunCheckpoints
from grulab.tracking.guard import LossGuard
from grulab.tracking.progress import TerminalProgress
from grulab.tracking.recorder import Recorder
from grulab.tracking.summary import Summary, read_summary
from grulab.tracking.tensorboard import RunLogger, session_name

_LENGTH_BUCKETS = 6

log = logging.getLogger(__name__)


def train(config: Config, run_dir: Path | str) -> dict[str, Any]:
    """Train one GRU and leave everything about it in a folder.

    Args:
        config: what to do; see :func:`grulab.compose`.
        run_dir: the run's folder; it is made, and may not hold a run yet.

    Returns:
        The content of summary.json.

    Raises:
        ConfigError: if the folder holds a run, or the machine lacks what the configuration asks for.
        NonFiniteLossError: if the loss becomes NaN or infinite.
    """
    run_dir = Path(run_dir)
    if (existing := read_summary(run_dir)) is not None:
        raise ConfigError(f"hydra.run.dir={run_dir}: holds a run ({existing['status']}); choose another folder")
    accelerator = find_accelerator(config)
    (run_dir / checkpoints.FOLDER).mkdir(parents=True, exist_ok=True)
    with Summary(run_dir, config) as summary:
        for note in config.notes():
            log.warning(note)

        L.seed_everything(config.seed, verbose=False)
        datamodule = SequenceDataModule(config.data, config.seed)
        task = datamodule.task
        module = build_module(config, task.num_features, task.num_classes)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        ceiling = task.ceiling()
        summary.update(parameters=parameters, chance=task.chance, ceiling=ceiling)

        logger = RunLogger(run_dir)
        logger.begin(config.to_dict(), session_name(run_dir))
        keeper = RunCheckpoints(run_dir / checkpoints.FOLDER, config)
        callbacks = [Recorder(run_dir, task.chance, ceiling), LossGuard(), TerminalProgress(), keeper]
        status = "failed"
        try:
            trainer = build_trainer(config, accelerator, run_dir, logger, callbacks)
            _fit(trainer, module, datamodule)

            module.load_state_dict(torch.load(keeper.best_path, weights_only=True)["state_dict"])
            trainer.test(module, datamodule=datamodule, verbose=False)
            test = _test_metrics(module)
            assert keeper.best_step is not None
            logger.log_metrics(test, keeper.best_step)
            status = "done"
        finally:
            logger.end(status)

        metrics = _epoch_metrics(run_dir, keeper.best_epoch) | test
        summary.update(metrics=metrics, best_epoch=keeper.best_epoch, epochs=trainer.current_epoch)
    _report(config, run_dir, summary.content)
    return summary.content


def build_module(config: Config, num_features: int, num_classes: int) -> SequenceClassifier:
    """Return the untrained module."""
    return SequenceClassifier(
        input_size=num_features,
        hidden_size=config.model.hidden_size,
        num_layers=config.model.num_layers,
        num_classes=num_classes,
        bidirectional=config.model.bidirectional,
        dropout=config.model.dropout,
        algorithm=config.optimizer.algorithm,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
    )


def build_trainer(
    config: Config, accelerator: str, run_dir: Path, logger: RunLogger, callbacks: list[L.Callback]
) -> L.Trainer:
    """Return the Trainer: Lightning's loop, and our own callbacks for everything around it."""
    # What Lightning tells of itself is not about the run.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*smaller than the logging interval",
        ".*isinstance.treespec, LeafSpec.",
    ):
        warnings.filterwarnings("ignore", message)
    trainer = L.Trainer(
        max_epochs=config.trainer.max_epochs,
        accelerator=accelerator,
        devices=config.trainer.devices,
        precision=config.trainer.precision,
        gradient_clip_val=config.trainer.gradient_clip_val,
        deterministic=config.trainer.deterministic,
        default_root_dir=run_dir,
        logger=logger,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    # A guard for operators that read memory before they write it; nothing here does, and it costs a pass over each
    # new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer


def _fit(trainer: L.Trainer, module: SequenceClassifier, datamodule: SequenceDataModule) -> None:
    try:
        trainer.fit(module, datamodule=datamodule)
    except SystemExit as exit_:
        # Lightning turns Ctrl-C into exit code 1, which says "failed", and leaves the process deaf to the next one.
        if isinstance(exit_.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise exit_.__context__ from None
        raise


def _test_metrics(module: SequenceClassifier) -> dict[str, float]:
    """Return the test means, and the accuracy for each range of lengths."""
    means = module.test_means.compute()
    outcomes = pd.DataFrame(
        {
            "length": torch.cat([lengths for lengths, _ in module.test_outcomes]).numpy(),
            "correct": torch.cat([correct for _, correct in module.test_outcomes]).cpu().numpy(),
        }
    )
    low, high = int(outcomes["length"].min()), int(outcomes["length"].max())
    width = -(-(high - low + 1) // _LENGTH_BUCKETS)
    starts = low + (outcomes["length"] - low) // width * width
    by_length = outcomes.groupby(starts)["correct"].mean()
    return {f"test/{name}": value for name, value in means.items()} | {
        f"test/accuracy_by_length/{start}-{min(start + width - 1, high)}": float(value)
        for start, value in zip(by_length.index.astype(int), by_length, strict=True)
    }


def _epoch_metrics(run_dir: Path, epoch: int | None) -> dict[str, float]:
    """Return an epoch's row of metrics.csv, its metrics alone."""
    with (run_dir / recorder.FILE_NAME).open(newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if int(row["epoch"]) == epoch)
    return {tag: float(value) for tag, value in row.items() if "/" in tag}


def _report(config: Config, run_dir: Path, content: dict[str, Any]) -> None:
    metrics = content["metrics"]
    log.info(
        "result  test accuracy %.3f (chance %.3f, ceiling %.3f), loss %.4f, with epoch %d of %d, best by %s",
        metrics["test/accuracy"],
        content["chance"],
        content["ceiling"],
        metrics["test/loss"],
        content["best_epoch"],
        content["epochs"],
        config.checkpoint.monitor,
    )
    log.info("folder  %s", shown(run_dir))
    log.info("next    grulab trace %s", shown(run_dir))

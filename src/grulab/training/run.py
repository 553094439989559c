"""One run, top to bottom: build, fit, test with the best checkpoint, summarise."""

import errno
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.profilers import PassThroughProfiler

from grulab.config.same_run import refuse_another_run
from grulab.config.schema import Config, ConfigError, parse_stored
from grulab.data.datamodule import SequenceDataModule
from grulab.kernels.backend import note_of_missing
from grulab.run_folder import event_file, tensorboard
from grulab.run_folder.checkpoint_file import KEY, SealedFiles
from grulab.run_folder.lock import own
from grulab.run_folder.paths import shown
from grulab.run_folder.summary import Summary, read_summary, write_summary
from grulab.run_folder.tensorboard import RunLogger
from grulab.system.signals import Interrupted
from grulab.training.callbacks import checkpointing, epoch_log
from grulab.training.callbacks.checkpointing import RunCheckpoints
from grulab.training.callbacks.epoch_log import Recorder
from grulab.training.callbacks.graceful_stop import Interruption
from grulab.training.callbacks.progress_bar import TerminalProgress
from grulab.training.callbacks.rng_state import RandomState
from grulab.training.callbacks.terminate_on_nan import LossGuard
from grulab.training.device import find_accelerator, find_backend
from grulab.training.fast_loop import StepLoop
from grulab.training.module import SequenceClassifier

_LENGTH_BUCKETS = 6
_NOTHING = nullcontext()
_NOT_ABOUT_THE_RUN = (
    ".*does not have many workers",
    ".*smaller than the logging interval",
    # The batch plan knows where it is; Lightning looks for another way of knowing.
    ".*your dataloader is not resumable",
    ".*isinstance.treespec, LeafSpec.",
)

log = logging.getLogger(__name__)


class _NoProfiler(PassThroughProfiler):
    """Lightning's profiler that does nothing, without a generator for each of the 80 things a step is made of."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _NOTHING


class DiskFullError(RuntimeError):
    """There is no room to write; what was written before is whole."""


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
        DiskFullError: if there is no room to write.
        Interrupted: if the run was asked to stop; everything up to there is saved.
    """
    run_dir = Path(run_dir)
    accelerator = find_accelerator(config)
    run_dir.mkdir(parents=True, exist_ok=True)
    with explained(run_dir), own(run_dir):
        if (existing := read_summary(run_dir)) is not None:
            raise ConfigError(
                f"{run_dir}: holds a run ({existing['status']}); "
                f"go on with grulab resume {shown(run_dir)}, or choose another folder"
            )
        return execute(config, run_dir, accelerator)


def go_on(config: Config, run_dir: Path) -> dict[str, Any]:
    """Go on with the run in a folder; see :func:`grulab.resume`.

    Args:
        config: the run's, with what may change.
        run_dir: the run's folder.
    """
    accelerator = find_accelerator(config)
    with explained(run_dir), own(run_dir):
        folder = run_dir / checkpointing.FOLDER
        found = checkpointing.newest_good(folder)
        summary = read_summary(run_dir)
        if found is None:
            rows = epoch_log.count_rows(run_dir)
            # The first epoch is the best so far, so a checkpoint follows its row at once.
            if rows > 1 or (summary and summary["status"] == "done"):
                raise ConfigError(
                    f"{folder}: holds no checkpoint, but metrics.csv has {rows} epochs; put the checkpoints back, "
                    "or begin anew with grulab train"
                )
            log.info("nothing was saved yet: the run begins anew")
            return execute(config, run_dir, accelerator)
        _, state = found
        if "backend" not in state[KEY]["config"]["model"]:
            raise ConfigError(
                f"{folder}: was written by an earlier version of grulab, whose batches came in another order; it can "
                "be looked at, but only that version can go on with it exactly"
            )
        refuse_another_run(parse_stored(state[KEY]["config"]), config)
        checkpointing.check_best(folder, state)
        epochs, batches = state[KEY]["epochs"], state[KEY]["batches"]
        if config.trainer.max_epochs < epochs:
            raise ConfigError(f"trainer.max_epochs={config.trainer.max_epochs}: {epochs} epochs are done already")
        best_epoch = state["callbacks"][RunCheckpoints.__name__]["best_epoch"]
        is_reported = summary is not None and summary["status"] == "done" and "test/accuracy" in summary["metrics"]
        if summary and is_reported and checkpointing.is_trained(config, epochs, best_epoch):
            if summary["config"] != config.to_dict():
                # Another horizon or patience under which it is finished just as well.
                summary |= {"config": config.to_dict(), "config_hash": config.hash()}
                write_summary(run_dir, summary)
            log.info("finished already: to go on, name a later end, such as trainer.max_epochs=%d", 2 * epochs)
            _announce(config, run_dir, summary)
            return summary
        log.info("resumed  after epoch %d and %d batches of the next", epochs, batches)
        return execute(config, run_dir, accelerator, found)


def execute(
    config: Config, run_dir: Path, accelerator: str, resumed: tuple[Path, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Run from the beginning or from a checkpoint of the same run, in a folder that this process owns.

    Args:
        config: what to do.
        run_dir: the run's folder.
        accelerator: see :func:`find_accelerator`.
        resumed: the checkpoint to go on from, and its content.

    Returns, Raises:
        As :func:`train`.
    """
    summary = Summary(run_dir, config)
    interruption = Interruption(mark=lambda: summary.update(status="interrupted"))
    with interruption.listening(), summary:
        for note in config.notes():
            log.warning(note)
        checkpoint, state = resumed or (None, None)
        epochs = state[KEY]["epochs"] if state else 0
        (run_dir / checkpointing.FOLDER).mkdir(exist_ok=True)

        torch.set_num_threads(config.trainer.threads)
        L.seed_everything(config.seed, verbose=False)
        datamodule = SequenceDataModule(config.data, config.seed)
        task = datamodule.task
        module = build_module(config, task.num_features, task.num_classes)
        if config.trainer.precision == "64-true":
            # Lightning converts the module after it has restored the weights, which would round them.
            module.double()
        parameters = sum(parameter.numel() for parameter in module.parameters())
        ceiling = task.ceiling()
        backend = find_backend(config, accelerator)
        for line in _backend_notes(config, accelerator, backend, summary.content["backend"] if resumed else None):
            log.warning(line)
        summary.update(parameters=parameters, backend=backend, chance=task.chance, ceiling=ceiling)

        rows = state["callbacks"][Recorder.__name__]["rows"] if state else []
        epoch_log.write_table(run_dir, rows)
        event_file.cut_back(run_dir / tensorboard.FOLDER, epoch_log.curves(rows, task.chance, ceiling))

        keeper = RunCheckpoints(run_dir / checkpointing.FOLDER, config, interruption)
        if state:
            keeper.load_state_dict(state["callbacks"][type(keeper).__name__])
        logger = RunLogger(run_dir)
        try:
            logger.begin(config.to_dict(), tensorboard.session_name(run_dir))
            callbacks = [
                interruption,
                RandomState(),
                Recorder(run_dir, task.chance, ceiling, is_new=epochs == 0),
                LossGuard(),
                TerminalProgress(),
                keeper,
            ]
            trainer = build_trainer(config, accelerator, run_dir, logger, callbacks)
            if not checkpointing.is_trained(config, epochs, keeper.best_epoch):
                trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)

            module.load_state_dict(keeper.load_best()["state_dict"])
            trainer.test(module, datamodule=datamodule, verbose=False)
            test = _test_metrics(module, task.length_range)
            assert keeper.best_step is not None
            assert keeper.best_epoch is not None
            logger.log_metrics(test, keeper.best_step)
        except BaseException as error:
            is_failure = isinstance(error, Exception) and not interruption.requested
            logger.end("failed" if is_failure else "interrupted")
            # Whatever broke while the run was being stopped, it was being stopped.
            interruption.check()
            raise
        finally:
            datamodule.close()
        logger.end("done")

        table = pd.read_csv(run_dir / epoch_log.FILE_NAME, float_precision="round_trip").set_index("epoch")
        best = {tag: float(table[tag][keeper.best_epoch]) for tag in table.columns if "/" in tag}
        metrics = best | test
        speed = config.data.train_size * len(table) / table["seconds"].sum()
        summary.update(
            metrics=metrics,
            best_epoch=keeper.best_epoch,
            epochs=len(table),
            sequences_per_second=round(float(speed), 1),
            padding=round(datamodule.padding(), 4),
        )
    _announce(config, run_dir, summary.content)
    return summary.content


def _backend_notes(config: Config, accelerator: str, backend: str, before: str | None) -> Iterator[str]:
    """Yield what the user should know of what computes the recurrent part."""
    missing = note_of_missing()
    if config.model.backend == "auto" and accelerator == "cpu" and missing:
        yield missing
    if config.model.backend == "fused" and backend == "torch":
        precision = config.trainer.precision
        cause = f"trainer.precision={precision}" if precision != "32-true" else f"the {accelerator} device"
        yield f"model.backend=fused has no effect with {cause}: nn.GRU runs; the kernels are for 32-true on the cpu"
    if before is not None and before != backend:
        names = {"fused": "the fused kernels", "torch": "nn.GRU"}
        yield (
            f"resumed with {names[backend]} after {names[before]}: the last bits differ from those of a run that was "
            f"never interrupted; model.backend={before} goes on as before"
        )


@contextmanager
def explained(run_dir: Path) -> Iterator[None]:
    """Say how to go on after an interruption or with a full disk; leave any other traceback in run.log.

    Raises:
        DiskFullError: for the system's errors of that kind.
    """
    try:
        yield
    except ConfigError:
        raise
    except Interrupted as error:
        log.warning("interrupted by %s; go on with  grulab resume %s", error, shown(run_dir))
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            _log_traceback(error)
            raise
        known = read_summary(run_dir) is not None or (run_dir / ".hydra" / "config.yaml").is_file()
        command = f"go on with grulab resume {shown(run_dir)}" if known else "start the run again"
        raise DiskFullError(f"{run_dir}: the disk is full; make room, then {command}") from error
    except Exception as error:
        _log_traceback(error)
        raise


def _log_traceback(error: Exception) -> None:
    """Write the traceback to run.log alone: the terminal has the one line."""
    record = log.makeRecord(
        log.name, logging.ERROR, __file__, 0, "traceback", (), (type(error), error, error.__traceback__)
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def build_module(config: Config, num_features: int, num_classes: int) -> SequenceClassifier:
    """Return the untrained module."""
    return SequenceClassifier(
        input_size=num_features,
        hidden_size=config.model.hidden_size,
        num_layers=config.model.num_layers,
        num_classes=num_classes,
        bidirectional=config.model.bidirectional,
        dropout=config.model.dropout,
        # That a run insists on the kernels is no matter of its weights, which others may use.
        backend="torch" if config.model.backend == "torch" else "auto",
        algorithm=config.optimizer.algorithm,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        schedule=config.optimizer.schedule,
    )


def build_trainer(
    config: Config, accelerator: str, run_dir: Path, logger: RunLogger, callbacks: Sequence[L.Callback]
) -> L.Trainer:
    """Return the Trainer: Lightning's loop, and our own callbacks for everything around it."""
    # What Lightning tells of itself is not about the run.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _NOT_ABOUT_THE_RUN:
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
        profiler=_NoProfiler(),
        # Otherwise, under SLURM, Lightning would requeue the job itself when it is told to stop.
        plugins=[LightningEnvironment(), SealedFiles()],
    )
    trainer.fit_loop.epoch_loop = StepLoop(trainer)
    # A guard for operators that read memory before they write it; nothing here does, and it costs a pass over each
    # new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer


def _test_metrics(module: SequenceClassifier, length_range: tuple[int, int]) -> dict[str, float]:
    """Return the test means, and the accuracy for each range of lengths: the same ranges in every run of a task."""
    means = module.test_means.compute()
    outcomes = pd.DataFrame(
        {
            "length": torch.cat([lengths for lengths, _ in module.test_outcomes]).numpy(),
            "correct": torch.cat([correct for _, correct in module.test_outcomes]).cpu().numpy(),
        }
    )
    low, high = length_range
    width = -(-(high - low + 1) // _LENGTH_BUCKETS)
    starts = low + (outcomes["length"] - low) // width * width
    by_length = outcomes.groupby(starts)["correct"].mean()
    return {f"test/{name}": value for name, value in means.items()} | {
        f"test/accuracy_by_length/{start}-{min(start + width - 1, high)}": float(value)
        for start, value in zip(by_length.index.astype(int), by_length, strict=True)
    }


def _announce(config: Config, run_dir: Path, content: dict[str, Any]) -> None:
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

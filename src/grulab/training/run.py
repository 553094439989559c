"""One run, top to bottom: build, fit, test with the best checkpoint, summarise."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch

from grulab.config.notes import notes
from grulab.config.parameter_budget import within_budget
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.data.datamodule import SequenceDataModule
from grulab.data.workers import refuse_missing_workers
from grulab.internals.lightning import act_as_rank_zero, why_not_fast
from grulab.kernels.backend import backend_notes, find_backend, step_kind
from grulab.run_folder import event_file, metrics_csv, paths
from grulab.run_folder.checkpoint_file import KEY
from grulab.run_folder.full_disk import DiskFullError, explained_full_disk
from grulab.run_folder.hparams import session_name
from grulab.run_folder.lock import lock
from grulab.run_folder.paths import display_path
from grulab.run_folder.summary import Summary, read_summary
from grulab.run_folder.tensorboard_logger import RunLogger
from grulab.system.signals import Interrupted
from grulab.tasks.base import ceiling_in_words, checked_ceiling
from grulab.tasks.baselines import baselines
from grulab.training.accuracy_by_length import accuracy_by_length
from grulab.training.build import build_module, build_trainer
from grulab.training.callbacks.checkpointing import Checkpointer
from grulab.training.callbacks.epoch_log import EpochLog, curves, drawn_tags, task_bounds
from grulab.training.callbacks.graceful_stop import GracefulStop
from grulab.training.callbacks.progress_bar import ProgressBar
from grulab.training.callbacks.rng_state import RNGState
from grulab.training.callbacks.terminate_on_nan import TerminateOnNaN
from grulab.training.confusion_figure import draw_confusion
from grulab.training.device import device_notes, find_accelerator, has_graphs
from grulab.training.early_stopping import is_trained
from grulab.training.module import SequenceClassifier
from grulab.training.test_results import class_results, compare, in_order, write_predictions
from grulab.training.worth import worth_in_words

log = logging.getLogger(__name__)

_MUCH_PADDING = 0.5


def train(config: Config, run_dir: Path | str, datamodule: SequenceDataModule | None = None) -> dict[str, Any]:
    """Train one GRU and write its results to a folder.

    Args:
        config: the run's configuration; see :func:`grulab.compose`.
        run_dir: the run's folder, created if missing; it must not hold a run yet.
        datamodule: of other sequences than the configuration's; see :meth:`SequenceDataModule.from_arrays`. The order
            of its batches is that of the configuration's seed.

    Returns:
        The content of summary.json.

    Raises:
        ConfigError: if the folder holds a run or another process holds its lock, or if the machine lacks the
            accelerator, the kernels or the worker processes that the configuration requires.
        NonFiniteLossError: if the loss becomes NaN or infinite.
        DiskFullError: if the disk is full.
        Interrupted: after a signal to stop; the state of the training is saved.
    """
    run_dir = Path(run_dir)
    if datamodule is not None:
        config = within_budget(dataclasses.replace(config, data=datamodule.config))
    find_accelerator(config)
    refuse_missing_workers(config.data.num_workers)
    run_dir.mkdir(parents=True, exist_ok=True)
    with explained_full_disk(run_dir), lock(run_dir):
        return begin(config, run_dir)


def begin(config: Config, run_dir: Path) -> dict[str, Any]:
    """Train one GRU in a folder that this process has locked; see :func:`train`."""
    accelerator = find_accelerator(config)
    with explained(run_dir):
        if (existing := read_summary(run_dir)) is not None:
            raise ConfigError(
                f"{run_dir}: holds a run ({existing['status']}); "
                f"go on with grulab resume {display_path(run_dir)}, or choose another folder"
            )
        return execute(config, run_dir, accelerator)


def execute(
    config: Config, run_dir: Path, accelerator: str, resumed: tuple[Path, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Run from the beginning or from a checkpoint of the same run, in a folder that this process has locked.

    Args:
        config: the run's configuration.
        run_dir: the run's folder.
        accelerator: "cpu", "cuda" or "mps"; see :func:`find_accelerator`.
        resumed: path and content of the checkpoint to resume from; None to start from the beginning.

    Returns, Raises:
        As :func:`train`.
    """
    summary = Summary(run_dir, config)
    graceful_stop = GracefulStop(mark=lambda: summary.update(status="interrupted"))
    with graceful_stop.listening(), summary:
        for line in notes(config):
            log.warning(line)
        checkpoint, state = resumed or (None, None)
        epochs = state[KEY]["epochs"] if state else 0
        checkpoints = run_dir / paths.CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)

        act_as_rank_zero()
        torch.set_num_threads(config.trainer.threads)
        L.seed_everything(config.seed, verbose=False)
        datamodule = SequenceDataModule(config.data, config.seed)
        task = datamodule.task
        module = build_module(config, task)
        padding = datamodule.padding()
        if padding > _MUCH_PADDING:
            log.warning(
                "%.0f %% of the batches is padding: the lengths differ much; a smaller data.batch_size, or "
                "data.max_steps, makes an epoch shorter",
                100 * padding,
            )
        parameters = sum(parameter.numel() for parameter in module.parameters())
        ceiling = checked_ceiling(task)
        backend = find_backend(config, accelerator)
        loop = config.trainer.loop
        if loop == "fast" and (note := why_not_fast()):
            log.warning(note)
            loop = "lightning"
        step = step_kind(config, accelerator, backend, loop)
        before = summary.content["backend"] if resumed else None
        for line in [*backend_notes(config, accelerator, backend, before), *device_notes(config, accelerator, loop)]:
            log.warning(line)
        if resumed and before == backend and (old := summary.content["step"]) != step:
            log.warning("training steps were %s, and are %s from here on: the last bits differ for that", old, step)
        summary.update(
            parameters=parameters, backend=backend, loop=loop, step=step, chance=task.chance, ceiling=ceiling
        )

        compared = baselines(task)
        bounds = task_bounds(task.chance, ceiling, {baseline.name: baseline.val for baseline in compared})
        rows = state["callbacks"][EpochLog.__name__]["rows"] if state else []
        metrics_csv.write_rows(run_dir, rows)
        tags = drawn_tags(config.optimizer.schedule)
        event_file.cut_back(run_dir / paths.TENSORBOARD, curves(rows, tags, bounds))

        checkpointer = Checkpointer(checkpoints, config, graceful_stop, task.metadata())
        if state:
            checkpointer.load_state_dict(state["callbacks"][Checkpointer.__name__])
        logger = RunLogger(run_dir)
        try:
            logger.begin(config.to_dict(), session_name(run_dir))
            callbacks = [
                graceful_stop,
                RNGState(),
                EpochLog(run_dir, tags, bounds, is_new=epochs == 0),
                TerminateOnNaN(),
                ProgressBar(),
                checkpointer,
            ]
            trainer = build_trainer(config, accelerator, run_dir, logger, callbacks)
            if loop == "fast":
                # A version of Lightning that was not tested may lack what this imports.
                from grulab.training.fast_loop import use_fast_loop

                graphs = has_graphs(config, accelerator, loop)
                use_fast_loop(trainer, module, with_graphs=graphs, with_step=step == "fused")
            if not is_trained(config, epochs, checkpointer.best_epoch, checkpointer.best_score):
                trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)

            module.load_state_dict(checkpointer.load_best()["state_dict"])
            module.keeps_logits = task.has_ids
            trainer.test(module, datamodule=datamodule, verbose=False)
            by_length = accuracy_by_length(task, module.test_outcomes)
            test = _test_metrics(module, by_length)
            assert checkpointer.best_step is not None
            assert checkpointer.best_epoch is not None
            logger.log_metrics(test, checkpointer.best_step)
            order = datamodule.test_order()
            classes = class_results(module, task.class_names)
            if task.has_ids:
                truth = task.classes("test")
                write_predictions(run_dir, task, in_order(module.test_logits, order), truth)
                if "confusion_matrix" in classes:
                    figure = draw_confusion(classes["confusion_matrix"], task.class_names)
                    logger.experiment.add_figure("test/confusion_matrix", figure, checkpointer.best_step)
            right = in_order([correct for _, correct in module.test_outcomes], order)
        except BaseException as error:
            is_failure = isinstance(error, Exception) and not graceful_stop.requested
            logger.end("failed" if is_failure else "interrupted")
            # An error after a signal to stop does not count as a failure of the run.
            graceful_stop.check()
            raise
        finally:
            datamodule.close()
        logger.end("done")

        table = pd.read_csv(run_dir / paths.METRICS, float_precision="round_trip").set_index("epoch")
        best = {tag: float(table[tag][checkpointer.best_epoch]) for tag in table.columns if "/" in tag}
        metrics = best | test
        speed = task.size("train") * len(table) / table["seconds"].sum()
        summary.update(
            metrics=metrics,
            best_epoch=checkpointer.best_epoch,
            epochs=len(table),
            sequences_by_length=dict(zip(by_length["range"], by_length["sequences"].tolist(), strict=True)),
            sequences_per_second=round(float(speed), 1),
            padding=round(padding, 4),
            baselines=compare(compared, right),
            **classes,
        )
    announce(config, run_dir, summary.content)
    return summary.content


@contextmanager
def explained(run_dir: Path) -> Iterator[None]:
    """Report how to resume after an interruption or a full disk; write the traceback of other errors to run.log.

    Raises:
        DiskFullError: in place of an OSError for a full disk or an exceeded quota.
    """
    try:
        with explained_full_disk(run_dir):
            yield
    except (ConfigError, DiskFullError):
        raise
    except Interrupted as error:
        log.warning("interrupted by %s; go on with  grulab resume %s", error, display_path(run_dir))
        raise
    except Exception as error:
        _log_traceback(error)
        raise


def _log_traceback(error: Exception) -> None:
    """Write the traceback to run.log only: the terminal shows one line for the error."""
    record = log.makeRecord(
        log.name, logging.ERROR, __file__, 0, "traceback", (), (type(error), error, error.__traceback__)
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def announce(config: Config, run_dir: Path, content: dict[str, Any]) -> None:
    """Log the result of a finished run, its folder, and the command for the next step.

    Args:
        config: the run's configuration.
        run_dir: the run's folder.
        content: the content of its summary.json.
    """
    metrics = content["metrics"]
    log.info(
        "result  test accuracy %.3f (chance %.3f, ceiling %s), loss %.4f, with epoch %d of %d, best by %s",
        metrics["test/accuracy"],
        content["chance"],
        ceiling_in_words(content["ceiling"]),
        metrics["test/loss"],
        content["best_epoch"],
        content["epochs"],
        config.checkpoint.monitor,
    )
    if content.get("baselines"):
        shown = ", ".join(f"{baseline['name']} {baseline['test']:.3f}" for baseline in content["baselines"])
        log.info("compare %s (test accuracy of simple classifiers)", shown)
        log.info("verdict %s", worth_in_words([content["baselines"]]))
    log.info("folder  %s", display_path(run_dir))
    log.info("next    grulab trace %s", display_path(run_dir))


def _test_metrics(module: SequenceClassifier, by_length: pd.DataFrame) -> dict[str, float]:
    """Return the test means and the accuracies by length, keyed by TensorBoard tag."""
    means = {f"test/{name}": value for name, value in module.test_metrics.compute().items()}
    tags = "test/accuracy_by_length/" + by_length["range"]
    return means | dict(zip(tags, by_length["accuracy"].tolist(), strict=True))

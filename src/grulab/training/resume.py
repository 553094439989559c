"""Resume a stopped run exactly, from its folder alone."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grulab.config.same_run import differ_in_how_only, refuse_another_run, what_differs
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.data.workers import refuse_missing_workers
from grulab.run_folder import metrics_csv, paths
from grulab.run_folder.checkpoint_file import KEY
from grulab.run_folder.checkpoint_folder import check_best, newest_good
from grulab.run_folder.lock import lock
from grulab.run_folder.stored_config import parse_stored, resumed_config
from grulab.run_folder.summary import read_summary, write_summary
from grulab.training.callbacks.checkpointing import Checkpointer
from grulab.training.callbacks.epoch_log import EpochLog
from grulab.training.checkpoint_schema import load_checked
from grulab.training.device import find_accelerator
from grulab.training.early_stopping import what_ended
from grulab.training.run import announce, execute, explained

log = logging.getLogger(__name__)


def resume(run_dir: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resume a run where it stopped.

    Args:
        run_dir: the run's folder.
        overrides: changes to its configuration; see ``grulab.config.same_run.MAY_CHANGE``.

    Returns:
        The content of summary.json. A finished run that is not extended keeps its results.

    Raises:
        ConfigError: if the folder holds no run or another run, or if another process holds its lock.
        DamagedCheckpointError: if no checkpoint is intact.
        UnsafeCheckpointError: if a checkpoint would execute code when it is loaded.
        NonFiniteLossError, DiskFullError, Interrupted: as :func:`grulab.train`.
    """
    return resume_run(resumed_config(Path(run_dir), overrides), Path(run_dir))


def resume_run(config: Config, run_dir: Path) -> dict[str, Any]:
    """Resume the run in a folder; see :func:`grulab.resume`.

    Args:
        config: the run's configuration, with the overrides applied.
        run_dir: the run's folder.
    """
    accelerator = find_accelerator(config)
    refuse_missing_workers(config.data.num_workers)
    with explained(run_dir), lock(run_dir):
        folder = run_dir / paths.CHECKPOINTS
        load = partial(load_checked, config=config)
        found = newest_good(folder, load)
        summary = read_summary(run_dir)
        if summary and (differing := what_differs(summary["config"], config.to_dict())):
            raise ConfigError(
                f"{run_dir / paths.SUMMARY}: is of another run, which differs in {', '.join(differing)}; move it "
                "away, or delete it, and the run that belongs here goes on"
            )
        if found is None:
            rows = metrics_csv.count_rows(run_dir)
            # The first epoch is always a new best, so a checkpoint is written right after its row.
            if rows > 1 or (summary and summary["status"] == "done"):
                raise ConfigError(
                    f"{folder}: holds no checkpoint, but metrics.csv has {rows} epochs; put the checkpoints back, "
                    "or begin anew with grulab train"
                )
            log.info("nothing was saved yet: the run begins anew")
            return execute(config, run_dir, accelerator)
        path, state = found
        try:
            refuse_another_run(parse_stored(state[KEY]["config"], path), config)
        except ConfigError as error:
            # The overrides were compared with the folder's configuration before: here the file is the odd one.
            lines = [line if str(path) in line else f"{path}: {line}" for line in str(error).splitlines()]
            raise ConfigError("\n".join(lines)) from None
        best = state["callbacks"][Checkpointer.__name__]
        best_epoch = best["best_epoch"]
        check_best(folder, state, best_epoch, load)
        epochs, batches = state[KEY]["epochs"], state[KEY]["batches"]
        if config.trainer.max_epochs < epochs:
            raise ConfigError(f"trainer.max_epochs={config.trainer.max_epochs}: {epochs} epochs are done already")
        is_reported = summary is not None and summary["status"] == "done" and "test/accuracy" in summary["metrics"]
        ended = what_ended(config, epochs, best_epoch, best["best_score"])
        if summary and is_reported and ended:
            stored = parse_stored(summary["config"], run_dir / paths.SUMMARY)
            if differ_in_how_only(stored, config):
                log.warning("the overrides have no effect: the run is done, and was computed in another way")
                config = stored
            if summary["config"] != config.to_dict():
                # The run is finished under the new max_epochs or patience as well: only the configuration changes.
                summary |= {"config": config.to_dict(), "config_hash": config.hash()}
                summary = write_summary(run_dir, summary)
            # The file may have been damaged since.
            metrics_csv.write_rows(run_dir, state["callbacks"][EpochLog.__name__]["rows"])
            later = f"trainer.max_epochs={2 * epochs}" if ended == "trainer.max_epochs" else f"{ended}=null"
            log.info("finished already: to go on, name a later end, such as %s", later)
            announce(config, run_dir, summary)
            return summary
        log.info("resumed  after epoch %d and %d batches of the next", epochs, batches)
        return execute(config, run_dir, accelerator, found)

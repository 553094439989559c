"""The status of a job, read from its folder: pending, running, interrupted, failed or done."""

from pathlib import Path
from typing import Any

from grulab.config.same_run import what_differs
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.lock import is_locked, lock
from grulab.run_folder.paths import display_path
from grulab.run_folder.summary import mark_failed, read_summary


def status_of(run_dir: Path) -> str:
    """Return the status of a job: "running" in summary.json means "interrupted" if no process holds the lock."""
    summary = read_summary(run_dir)
    if summary is None:
        if (run_dir / paths.SUMMARY).exists():
            return "failed"
        return "running" if is_locked(run_dir) else "pending"
    status = str(summary["status"])
    return "interrupted" if status == "running" and not is_locked(run_dir) else status


def result_of(run_dir: Path, config: Config) -> float | None:
    """Return the monitored metric of a job that is done with this configuration, or else None.

    A job that was trained for more epochs than the configuration requires is done as well.
    """
    summary = read_summary(run_dir)
    if summary is None or summary["status"] != "done":
        return None
    before: dict[str, Any] = summary["config"]
    values = config.to_dict()
    try:
        is_long_enough = before["trainer"]["max_epochs"] >= config.trainer.max_epochs
        is_patient = before["trainer"]["early_stopping_patience"] == config.trainer.early_stopping_patience
        if what_differs(before, values) or not (is_long_enough and is_patient):
            return None
        return float(summary["metrics"][config.checkpoint.monitor])
    except (KeyError, TypeError, ValueError):
        return None


def planned_status_of(run_dir: Path, config: Config) -> str:
    """Return the status of a job with a new configuration: "to extend" if a finished run has to train longer."""
    state = status_of(run_dir)
    return "to extend" if state == "done" and result_of(run_dir, config) is None else state


def record_failure(run_dir: Path, config: Config, kind: str, message: str) -> None:
    """Record in summary.json and TensorBoard that a job failed, unless the folder holds another run or is locked."""
    summary = read_summary(run_dir)
    if summary is not None and what_differs(summary["config"], config.to_dict()):
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with lock(run_dir):
            mark_failed(run_dir, config, kind, message)
            from grulab.run_folder.hparams import write_session_end

            write_session_end(run_dir, "failed")
    except ConfigError:
        # The process that holds the lock will record itself how the run ended.
        return


def cause_of(folder: Path) -> str:
    """Return the cause of the failure of a job, in one line."""
    summary = read_summary(folder)
    if summary is None and (folder / paths.SUMMARY).exists():
        return f"{paths.SUMMARY} cannot be read"
    error = (summary or {}).get("error")
    if not error:
        return f"left no summary; see {display_path(folder / paths.RUN_LOG)}"
    return f"{error['type']}: {(error['message'].splitlines() or [''])[0]}"

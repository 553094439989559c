"""The status of a job, read from its folder: pending, running, interrupted, failed or done."""

import os
from pathlib import Path
from typing import Any

from grulab.config.same_run import STOPPING, flatten, what_differs
from grulab.config.schema import Config
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.lock import is_locked, lock
from grulab.run_folder.paths import display_path
from grulab.run_folder.summary import mark_failed, read_summary
from grulab.system.printable import printable
from grulab.system.regular_file import refuse_odd_kinds

# The content of a job's summary.json, or None. A report of many jobs reads each file as rarely as it can.
_Summary = dict[str, Any] | None
# A cause is one line of a table.
_MAX_CAUSE = 300


def result_of(run_dir: Path, config: Config) -> float | None:
    """Return the monitored metric of a job that is done with this configuration, or else None.

    A job that was trained for more epochs than the configuration requires is done as well.
    """
    return _result(read_summary(run_dir), config)


def planned_status_of(run_dir: Path, config: Config) -> str:
    """Return the status of a job with a configuration, which may be a new one.

    It is "to extend" if a finished run has to train longer, and "failed" if the folder holds another run.
    """
    return planned_status(run_dir, config, read_summary(run_dir))


def planned_status(run_dir: Path, config: Config, summary: dict[str, Any] | None) -> str:
    """Return what :func:`planned_status_of` does, of a folder whose summary.json has been read."""
    state = "failed" if _another_run(summary, config) else _status(run_dir, summary)
    return "to extend" if state == "done" and _result(summary, config) is None else state


def record_failure(run_dir: Path, config: Config, kind: str, message: str) -> None:
    """Record in summary.json and TensorBoard that a job failed, unless the folder holds another run or is locked."""
    if _another_run(read_summary(run_dir), config):
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


def cause_of(folder: Path, config: Config) -> str:
    """Return the cause of the failure of a job, in one line."""
    summary = read_summary(folder)
    if found := _problem(folder, summary) or _another_run(summary, config):
        return found
    error = (summary or {}).get("error")
    if not error:
        return f"left no summary; see {display_path(folder / paths.RUN_LOG)}"
    return printable(f"{error['type']}: {(error['message'].splitlines() or [''])[0]}"[:_MAX_CAUSE])


def obstacle_in(folder: Path, sweep_dir: Path | None = None) -> str | None:
    """Return what keeps a job from writing to its folder, or None.

    Args:
        folder: of the job.
        sweep_dir: the sweep's folder; no folder between the two may be a link either.
    """
    between = [parent for parent in folder.parents if sweep_dir is not None and sweep_dir in parent.parents]
    try:
        if any(path.is_symlink() for path in (folder, *between)):
            return "its folder is a link, and a sweep writes in folders of its own"
        if folder.exists() and not folder.is_dir():
            return "its folder is a file"
        refuse_odd_kinds(paths.written_files(folder), paths.written_folders(folder))
    except ConfigError as error:
        return str(error)
    except OSError as error:
        return f"its folder cannot be read ({error.strerror})"
    return None


def _status(run_dir: Path, summary: _Summary) -> str:
    """Return the status of a job: "running" in summary.json means "interrupted" if no process holds the lock."""
    if summary is not None and summary["status"] == "done":
        return "done"
    if _problem(run_dir, summary):
        return "failed"
    if summary is None:
        return "running" if is_locked(run_dir) else "pending"
    status = str(summary["status"])
    return "interrupted" if status == "running" and not is_locked(run_dir) else status


def _result(summary: _Summary, config: Config) -> float | None:
    if summary is None or summary["status"] != "done":
        return None
    before: dict[str, Any] = summary["config"]
    old, new = flatten(before), flatten(config.to_dict())
    try:
        is_long_enough = before["trainer"]["max_epochs"] >= config.trainer.max_epochs
        stops_alike = all(old[key] == new[key] for key in STOPPING)
        if what_differs(old, new) or not (is_long_enough and stops_alike):
            return None
        return float(summary["metrics"][config.checkpoint.monitor])
    except (KeyError, TypeError, ValueError):
        return None


def _problem(folder: Path, summary: _Summary) -> str | None:
    if obstacle := obstacle_in(folder):
        return obstacle
    if summary is None and os.path.lexists(folder / paths.SUMMARY):
        return f"{paths.SUMMARY} cannot be read"
    return None


def _another_run(summary: _Summary, config: Config) -> str | None:
    """Return in what the run of a summary differs from a job, or None if it does not, or there is none."""
    if summary is None or summary["config"] == config.to_dict():
        return None
    before, after = flatten(summary["config"]), flatten(config.to_dict())
    differing = what_differs(before, after)
    if not differing:
        return None
    key = differing[0]
    return f"{key}={shown_value(after.get(key))}: the run in its folder has {shown_value(before.get(key))}"

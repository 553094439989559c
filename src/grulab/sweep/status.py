"""Where a job stands, as its folder tells: pending, running, interrupted, failed or done."""

from pathlib import Path
from typing import Any

from grulab.config.same_run import what_differs
from grulab.config.schema import Config, ConfigError
from grulab.run_folder.lock import is_owned, own
from grulab.run_folder.paths import shown
from grulab.run_folder.summary import FILE_NAME, mark_failed, read_summary


def state_of(run_dir: Path) -> str:
    """Return a job's state. A summary that says "running" is believed as long as a process owns the folder."""
    summary = read_summary(run_dir)
    if summary is None:
        if (run_dir / FILE_NAME).exists():
            return "failed"
        return "running" if is_owned(run_dir) else "pending"
    status = str(summary["status"])
    return "interrupted" if status == "running" and not is_owned(run_dir) else status


def result_of(run_dir: Path, config: Config) -> float | None:
    """Return the monitored metric of a job that is done with this configuration, else None.

    A job that went on for longer than it was asked to is done too.
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


def standing_of(run_dir: Path, config: Config) -> str:
    """Return the state of a job that is to have this configuration: a run that is done may be "to extend"."""
    state = state_of(run_dir)
    return "to extend" if state == "done" and result_of(run_dir, config) is None else state


def record_failure(run_dir: Path, config: Config, kind: str, message: str) -> None:
    """Say in a job's folder and in TensorBoard that it failed, unless the folder is another run's or in use."""
    summary = read_summary(run_dir)
    if summary is not None and what_differs(summary["config"], config.to_dict()):
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with own(run_dir):
            mark_failed(run_dir, config, kind, message)
            from grulab.run_folder.tensorboard import record_end

            record_end(run_dir, "failed")
    except ConfigError:
        # Somebody else's run: it will say itself how it ended.
        return


def cause_of(folder: Path) -> str:
    """Return why the job in a folder failed, in a line."""
    summary = read_summary(folder)
    if summary is None and (folder / FILE_NAME).exists():
        return f"{FILE_NAME} cannot be read"
    error = (summary or {}).get("error")
    if not error:
        return f"left no summary; see {shown(folder / 'run.log')}"
    return f"{error['type']}: {(error['message'].splitlines() or [''])[0]}"

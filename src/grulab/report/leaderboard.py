"""Tables of a sweep's results: the ranking of the configurations, and whether their differences are significant."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grulab.config.same_run import flatten, run_hash
from grulab.config.schema import is_higher_better
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.report.statistics import difference, interval
from grulab.run_folder import paths
from grulab.run_folder.metrics_csv import read_table
from grulab.run_folder.stored_config import parse_stored, stored_overrides
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.sweep.job import Job
from grulab.sweep.status import cause_of, planned_status_of
from grulab.training.worth import worth_in_words

# Keys that are not compared although they may differ between jobs.
_NOT_SWEPT = {"name", "seed"}
_SOLVED = "model.hidden_size"
_ABSENT = "absent"
# So many pairs that agree in the sign of their difference have a probability under 5 % by chance.
_PAIRS_OF_A_SIGN_TEST = 6
# Those that the command of a single job needs too.
_FLAGS = ("--config-dir=", "--config-name=")


@dataclass(frozen=True)
class Leaderboard:
    """The results in a sweep's folder.

    Attributes:
        jobs: one row per job: job, status, error, seed, the swept keys, metrics, parameters, seconds and so on.
        swept: keys whose values differ between jobs, without the seed.
        tied: keys that differ only together with a swept key, or that are computed from other keys, such as the
            hidden size from a parameter budget.
        metric: the metric that ranks the configurations.
        ranking: one row per configuration, the best first: the swept and tied keys, and for each metric its mean over
            seeds and half the 95 % interval of the mean.
    """

    jobs: pd.DataFrame
    swept: list[str]
    tied: list[str]
    metric: str
    ranking: pd.DataFrame

    @property
    def done(self) -> pd.DataFrame:
        """The jobs that have a result."""
        return self.jobs[self.jobs["status"] == "done"]

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame | None]:
        """The metrics.csv of each job that has a result, by the job; None if it is missing or damaged."""
        return {job: read_table(folder) for job, folder in zip(self.done["job"], self.done["folder"], strict=True)}

    def label(self, row: "pd.Series[Any]") -> str:
        """Return a configuration in words: ``hidden_size 16, num_layers 1``."""
        words = [f"{self.short(key)} {shown_value(_python(row[key]))}" for key in self.swept]
        return ", ".join(words) or "the one configuration"

    def short(self, key: str) -> str:
        """Return a swept key without its section, ``hidden_size``, if no other key has the same last part.

        A ``data.seed`` keeps its section: ``seed`` alone is the run's.
        """
        name = key.rsplit(".", 1)[-1]
        others = ["seed", *self.swept, *self.tied]
        return name if sum(other.rsplit(".", 1)[-1] == name for other in others) == 1 else key

    @property
    def best_job(self) -> "pd.Series[Any]":
        """The finished job with the best metric among those of the best configuration."""
        members = self.members(self.ranking.iloc[0])
        ascending = not is_higher_better(self.metric)
        return members.sort_values(self.metric, ascending=ascending, kind="stable").iloc[0]

    def members(self, row: "pd.Series[Any]") -> pd.DataFrame:
        """Return the finished jobs of the configuration in a row of ``ranking``."""
        jobs = self.done
        for key in self.swept:
            jobs = jobs[jobs[key] == row[key]]
        return jobs


def read_sweep(sweep_dir: Path) -> Leaderboard:
    """Read the jobs in a sweep's folder, finished or not.

    Raises:
        ConfigError: if the folder does not exist, or holds no job.
    """
    if not sweep_dir.is_dir():
        raise ConfigError(f"{sweep_dir}: {'is a file, and no folder' if sweep_dir.exists() else 'no such folder'}")
    known = manifest.read(sweep_dir)
    members = known.jobs if known and known.jobs else _found_jobs(sweep_dir)
    if not members:
        raise ConfigError(f"{sweep_dir}: is not a sweep's folder: no folder in it is a job's")
    flags = [word for word in known.arguments if word.startswith(_FLAGS)] if known else []
    records = [_record(sweep_dir / job.folder, job, flags) for job in members]
    values = [{key: _plain(value) for key, value in flatten(job.config.to_dict()).items()} for job in members]
    swept, tied = _axes(values, is_solved=all(job.config.model.parameter_budget is not None for job in members))
    configs = pd.DataFrame([{key: job.get(key, _ABSENT) for key in [*swept, *tied, "seed"]} for job in values])
    jobs = pd.concat([pd.DataFrame(records), configs], axis=1)
    metric = members[0].config.checkpoint.monitor
    return Leaderboard(jobs, swept, tied, metric, _rank(jobs, swept, tied, metric))


def verdict(board: Leaderboard) -> str:
    """Return a sentence on whether the best configuration beats the second, paired over the seeds that both have."""
    if len(board.ranking) < 2:
        return "There is nothing to compare: one configuration has results."
    first, second = board.ranking.iloc[0], board.ranking.iloc[1]
    mean, half, pairs = difference(board.members(first), board.members(second), board.metric, ["seed"])
    names = f"{board.label(first)} is ahead of {board.label(second)}"
    if pairs < 2:
        return f"{names}, but they share {pairs} seed(s): at least 2 are needed to tell a difference from chance."
    if mean == 0 and half == 0:
        return f"{board.label(first)} and {board.label(second)} are equal in every one of {pairs} seeds."
    low, high = mean - half, mean + half
    what = (
        f"by {abs(mean):.4f} in {board.metric} (95 % interval {low:+.4f} to {high:+.4f}, paired over {pairs} seeds)"
    )
    if half == 0 and pairs < _PAIRS_OF_A_SIGN_TEST:
        # Metrics of few sequences are coarse: two seeds often differ by the same number of them.
        return f"{names} by {abs(mean):.4f} in {board.metric} in every one of {pairs} seeds: that may be chance."
    real = low > 0 or high < 0
    return f"{names} {what}: " + ("the difference is real." if real else "that may be chance.")


def worth(board: Leaderboard) -> str | None:
    """Return a sentence on whether the best configuration beats simple classifiers; None if there are none."""
    jobs = [baselines for baselines in board.members(board.ranking.iloc[0])["baselines"] if baselines]
    return worth_in_words(jobs) if jobs else None


def effects(board: Leaderboard, key: str) -> pd.DataFrame:
    """Return the effect of a single swept key on the metric.

    Returns:
        One row per value: the mean over all its jobs, with half its 95 % interval; and the mean difference to the
        first value over pairs of jobs that agree in all other swept keys and the seed, with half its interval.
    """
    jobs, rest = board.done, [*(other for other in board.swept if other != key), "seed"]
    values = sorted(map(_python, jobs[key].unique()), key=lambda value: (isinstance(value, str), value))
    rows = []
    for value in values:
        chosen = jobs[jobs[key] == value]
        mean, half, pairs = difference(chosen, jobs[jobs[key] == values[0]], board.metric, rest)
        scores = chosen[board.metric]
        rows.append([value, len(chosen), scores.mean(), interval(scores), mean, half, pairs])
    columns = ["value", "jobs", "mean", "interval", "difference", "difference_interval", "pairs"]
    return pd.DataFrame(rows, columns=columns)


def _rank(jobs: pd.DataFrame, swept: list[str], tied: list[str], metric: str) -> pd.DataFrame:
    done = jobs[jobs["status"] == "done"]
    if done.empty:
        return pd.DataFrame(columns=swept)
    groups = done.groupby(swept, sort=False) if swept else done.groupby(lambda _: 0)
    metrics = [metric, *(tag for tag in ("test/accuracy", "test/loss", "val/loss") if tag != metric)]
    rows = []
    for _, group in groups:
        row: dict[str, Any] = {key: group[key].iloc[0] for key in [*swept, *tied]} | {"seeds": len(group)}
        for tag in metrics:
            row |= {tag: group[tag].mean(), f"{tag} interval": interval(group[tag])}
        row["parameters"] = int(group["parameters"].iloc[0])
        for tag in ("seconds", "sequences_per_second", "padding"):
            row[tag] = group[tag].mean()
        rows.append(row)
    # As objects, because pandas would convert 8 to 8.0 in a column of numbers.
    ranking = pd.DataFrame(rows).astype(dict.fromkeys([*swept, *tied], object))
    ranking = ranking.sort_values(metric, ascending=not is_higher_better(metric), kind="stable").reset_index(
        drop=True
    )
    ranking.insert(0, "rank", ranking.index + 1)
    return ranking


def _found_jobs(sweep_dir: Path) -> list[Job]:
    """Return the runs in a folder whose sweep.json is missing or lists no jobs."""
    jobs: dict[str, Job] = {}
    for number, folder in enumerate(sorted(sweep_dir.iterdir())):
        summary = read_summary(folder) if folder.is_dir() else None
        if summary is not None:
            overrides = stored_overrides(folder)
            config = parse_stored(summary["config"], folder / paths.SUMMARY)
            # A second copy of a run is not an independent result.
            jobs.setdefault(run_hash(config), Job(number, folder.name, overrides, config))
    return list(jobs.values())


def _record(folder: Path, job: Job, flags: list[str]) -> dict[str, Any]:
    status = planned_status_of(folder, job.config)
    summary = read_summary(folder) or {}
    if status != "done":
        # The metrics so far are not the result of a longer run, and those of another run are none at all.
        summary["metrics"] = {}
    own_end = _own_end(summary, job)
    return {
        "job": job.folder,
        "folder": folder,
        "arguments": [*flags, *job.overrides, *own_end],
        "own_end": own_end,
        "status": status,
        "error": cause_of(folder, job.config) if status == "failed" else "",
        "chance": summary.get("chance"),
        "ceiling": summary.get("ceiling"),
        "baselines": summary.get("baselines") or [],
        "classes": summary.get("classes") or [],
        "confusion_matrix": summary.get("confusion_matrix") or [],
        **{key: summary.get(key) for key in ("parameters", "seconds", "sequences_per_second", "padding")},
        **summary.get("metrics", {}),
    }


def _own_end(summary: dict[str, Any], job: Job) -> list[str]:
    """Return the override for a job that was resumed alone with a later end than the sweep's."""
    if summary.get("status") != "done":
        return []
    end = summary["config"].get("trainer", {}).get("max_epochs")
    return [] if end in (None, job.config.trainer.max_epochs) else [f"trainer.max_epochs={end}"]


def _axes(values: list[dict[str, Any]], is_solved: bool) -> tuple[list[str], list[str]]:
    """Return the swept keys, and the keys that are tied to a swept key.

    The effects of keys that always change together (zipped keys, or all keys of another task) cannot be separated, so
    only one of them counts as swept: the first key that every job has. The others are tied, except keys that some
    jobs lack, which get no column.

    Args:
        values: the configuration of each job, by dotted key.
        is_solved: whether the hidden size is computed from a parameter budget.
    """
    keys = list(dict.fromkeys(["data.task", *(key for job in values for key in job)]))
    everywhere = [key for key in keys if all(key in job for job in values)]
    partitions = {
        key: tuple(pd.factorize(pd.Series([job.get(key, _ABSENT) for job in values]))[0].tolist()) for key in keys
    }
    tasks = partitions["data.task"]
    seen: set[tuple[int, ...]] = set()
    swept, tied = [], []
    for key in [*everywhere, *(key for key in keys if key not in everywhere)]:
        differs = len(set(partitions[key])) > 1
        if key in _NOT_SWEPT or not differs:
            continue
        if key.endswith("seed") and partitions[key] == partitions["seed"]:
            # Another seed that always changes together with the run's seed is not compared either.
            continue
        if key == _SOLVED and is_solved:
            tied.append(key)
            continue
        # Of three tasks, two may have the same value of a key, which is still the task's.
        is_of_task = key != "data.task" and len({*zip(tasks, partitions[key], strict=True)}) == len({*tasks})
        if partitions[key] not in seen and not (key.startswith("data.") and is_of_task):
            swept.append(key)
        elif key in everywhere:
            tied.append(key)
        seen.add(partitions[key])
    return swept, tied


def _plain(value: Any) -> Any:
    """Return a value that can be compared and hashed: lists and None are converted to text."""
    return shown_value(value) if value is None or isinstance(value, list) else value


def _python(value: Any) -> Any:
    """Return a Python value: pandas returns NumPy scalars, such as NumPy's bool."""
    return value.item() if isinstance(value, np.generic) else value

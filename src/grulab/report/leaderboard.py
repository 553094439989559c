"""Tables of a sweep's results: the ranking of the configurations, and whether their differences are significant."""

from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grulab.config.compose import compose
from grulab.config.overrides import quoted, written
from grulab.config.same_run import flatten, run_hash
from grulab.config.schema import Config, is_higher_better
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.report.axes import ABSENT, DATA_SEED, axes, has_data_seeds
from grulab.report.statistics import bounds, difference
from grulab.run_folder import paths
from grulab.run_folder.metrics_csv import read_table
from grulab.run_folder.stored_config import parse_stored, stored_overrides
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.sweep.job import Job
from grulab.sweep.rungs import OF_RUNGS
from grulab.sweep.status import cause_of, planned_status
from grulab.tasks.base import GeneratedDataConfig
from grulab.training.worth import worth_in_words

# Those that the command of a single job needs too.
_FLAGS = ("--config-dir=", "--config-name=")


@dataclass(frozen=True)
class Leaderboard:
    """The results in a sweep's folder.

    Attributes:
        folder: the sweep's.
        jobs: one row per job: job, status, error, seed, the swept keys, metrics, parameters, seconds and so on.
        swept: keys whose values differ between jobs and are compared, without the seeds.
        tuned: keys that are chosen for each configuration.
        tied: keys that differ only together with a swept key, or that are computed from other keys, such as the
            hidden size from a parameter budget.
        repeat: the key whose values are independent repetitions: "data.seed" if the sweep has several data seeds, and
            its jobs with the same data, which share the luck of their test sequences, count as one; or else "seed".
        metric: the metric that ranks the configurations.
        rungs: numbers of epochs at which configurations were stopped; [] if there are none.
        indifference: of a race; None if the sweep is none.
        seeds: of a search, those that choose; None if the sweep is none.
        looks: how often the results have been looked at: once more after each time that jobs were added.
        ranking: one row per configuration, the best first: the swept, tuned and tied keys, and for each metric its
            mean over seeds, with ``low`` and ``high`` of its 95 % interval, or with fewer than 3 seeds the lowest and
            the highest.
    """

    folder: Path
    jobs: pd.DataFrame
    swept: list[str]
    tuned: list[str]
    tied: list[str]
    repeat: str
    metric: str
    rungs: list[int]
    indifference: float | None
    seeds: list[int] | None
    looks: int
    ranking: pd.DataFrame

    @property
    def done(self) -> pd.DataFrame:
        """The jobs that have a result; of a search, those whose seeds choose."""
        done = self.jobs[self.jobs["status"] == "done"]
        return done if self.seeds is None else done[done["seed"].isin(self.seeds)]

    @property
    def is_over(self) -> bool:
        """Whether every job has ended, well or not."""
        return bool(self.jobs["status"].isin(["done", "failed"]).all())

    @property
    def fresh(self) -> pd.DataFrame:
        """The jobs of a search that have a result, with seeds that did not choose."""
        done = self.jobs[self.jobs["status"] == "done"]
        return done.iloc[:0] if self.seeds is None else done[~done["seed"].isin(self.seeds)]

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame | None]:
        """The metrics.csv of each job that has a result, by the job; None if it is missing or damaged."""
        return {job: read_table(folder) for job, folder in zip(self.done["job"], self.done["folder"], strict=True)}

    def label(self, row: "pd.Series[Any]") -> str:
        """Return a configuration in words: ``hidden_size 16, num_layers 1``."""
        words = [f"{self.short(key)} {shown_value(_python(row[key]))}" for key in [*self.swept, *self.tuned]]
        return ", ".join(words) or "the one configuration"

    def short(self, key: str) -> str:
        """Return a swept key without its section, ``hidden_size``, if no other key has the same last part.

        A ``data.seed`` keeps its section: ``seed`` alone is the run's.
        """
        name = key.rsplit(".", 1)[-1]
        others = ["seed", *self.swept, *self.tuned, *self.tied]
        return name if sum(other.rsplit(".", 1)[-1] == name for other in others) == 1 else key

    @property
    def best_job(self) -> "pd.Series[Any]":
        """The finished job with the best metric among those of the best configuration."""
        members = self.members(self.ranking.iloc[0])
        ascending = not is_higher_better(self.metric)
        return members.sort_values(self.metric, ascending=ascending, kind="stable").iloc[0]

    def members(self, row: "pd.Series[Any]") -> pd.DataFrame:
        """Return the finished jobs of the configuration in a row of ``ranking``, with its tuned values."""
        jobs = self.done
        for key in [*self.swept, *self.tuned]:
            jobs = jobs[jobs[key] == row[key]]
        return jobs

    def scores(self, row: "pd.Series[Any]") -> "pd.Series[float]":
        """Return the metric of a configuration for each repetition."""
        return _of_repetitions(self.members(row), self.repeat, self.metric)

    def tables(self, row: "pd.Series[Any]") -> list[pd.DataFrame]:
        """Return the metrics.csv of each repetition of a configuration, of several jobs their mean in each epoch."""
        members = self.members(row)
        if self.repeat == "seed":
            groups = [[job] for job in members["job"]]
        else:
            groups = [list(group["job"]) for _, group in members.groupby(self.repeat)]
        found = [[table for job in group if (table := self.curves[job]) is not None] for group in groups]
        return [
            part[0] if len(part) == 1 else pd.concat(part).groupby("epoch", as_index=False).mean()
            for part in found
            if part
        ]

    @cached_property
    def tuned_jobs(self) -> pd.DataFrame:
        """The finished jobs of all configurations with their chosen tuned values: what effects are between."""
        if not self.tuned:
            return self.done
        return pd.concat([self.members(row) for _, row in self.ranking.iterrows()])


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
    design = known.design if known else manifest.GRID
    records = [_record(sweep_dir / job.folder, job, flags, design["rungs"]) for job in members]
    left_out = OF_RUNGS if design["rungs"] else set()
    values = [
        {key: _plain(value) for key, value in flatten(job.config.to_dict()).items() if key not in left_out}
        for job in members
    ]
    # Splits of a file share most of their sequences; a race and a search take other data for another configuration.
    is_generated = all(isinstance(job.config.data, GeneratedDataConfig) for job in members)
    repeat = DATA_SEED if is_generated and design["kind"] == "grid" and has_data_seeds(values) else "seed"
    is_solved = all(job.config.model.parameter_budget is not None for job in members)
    swept, tied = axes(values, is_solved, repeat)
    if design["seeds"] is not None:
        # With few trials two keys happen to change together.
        swept, tied = [*swept, *tied], []
    # A race tells values of a tuned key apart as it does others.
    tuned = [key for key in swept if key in design["tune"]] if design["kind"] != "race" else []
    swept = [key for key in swept if key not in tuned]
    configs = pd.DataFrame(
        [
            {key: job.get(key, ABSENT) for key in dict.fromkeys([*swept, *tuned, *tied, "seed", DATA_SEED])}
            for job in values
        ]
    )
    jobs = pd.concat([pd.DataFrame(records), configs], axis=1)
    metric = members[0].config.checkpoint.monitor
    chosen = jobs if design["seeds"] is None else jobs[jobs["seed"].isin(design["seeds"])]
    rungs = design["rungs"] or []
    ranking = _rank(chosen, swept, tuned, tied, repeat, metric, has_rungs=bool(rungs))
    return Leaderboard(
        sweep_dir, jobs, swept, tuned, tied, repeat, metric, rungs, design["indifference"], design["seeds"],
        1 + len(known.added) if known else 1, ranking,
    )  # fmt: skip


def worth(board: Leaderboard) -> str | None:
    """Return a sentence on whether the best configuration beats simple classifiers; None if there are none."""
    jobs = [baselines for baselines in board.members(board.ranking.iloc[0])["baselines"] if baselines]
    return worth_in_words(jobs) if jobs else None


def effects(board: Leaderboard, key: str) -> pd.DataFrame:
    """Return the effect of a single swept key on the metric.

    Returns:
        One row per value: the mean over all its jobs, with low and high of its interval; and the mean difference to
        the first value over pairs that agree in all other swept keys and the repetition, with half its interval.
    """
    rest = [*(other for other in board.swept if other != key), board.repeat]
    jobs = board.tuned_jobs.groupby([key, *rest], sort=False)[board.metric].mean().reset_index()
    values = sorted(map(_python, jobs[key].unique()), key=lambda value: (isinstance(value, str), value))
    rows = []
    for value in values:
        chosen = jobs[jobs[key] == value]
        mean, half, pairs = difference(chosen, jobs[jobs[key] == values[0]], board.metric, rest)
        scores = chosen[board.metric]
        low, high = bounds(scores, is_share=is_higher_better(board.metric))
        rows.append([value, len(chosen), scores.mean(), low, high, mean, half, pairs])
    columns = ["value", "jobs", "mean", "low", "high", "difference", "difference_interval", "pairs"]
    return pd.DataFrame(rows, columns=columns)


def _rank(
    jobs: pd.DataFrame, swept: list[str], tuned: list[str], tied: list[str], repeat: str, metric: str, has_rungs: bool
) -> pd.DataFrame:
    """Return the ranking.

    Configurations without a result of some seeds are behind those that have all, for the seeds that failed may be the
    bad ones; and those that were stopped at a rung behind those that trained for longer.
    """
    done = jobs[jobs["status"] == "done"]
    keys = [*swept, *tuned]
    if done.empty:
        return pd.DataFrame(columns=keys)
    groups = done.groupby(keys, sort=False) if keys else done.groupby(lambda _: 0)
    sizes: Counter[tuple[Any, ...]] = Counter(tuple(row) for row in jobs[keys].itertuples(index=False))
    metrics = [metric, *(tag for tag in ("test/accuracy", "test/loss", "val/loss") if tag != metric)]
    rows = []
    for name, group in groups:
        row: dict[str, Any] = {key: group[key].iloc[0] for key in [*keys, *tied]}
        row["seeds"] = group[repeat].nunique() if repeat != "seed" else len(group)
        for tag in metrics:
            values = _of_repetitions(group, repeat, tag)
            low, high = bounds(values, is_share=is_higher_better(tag))
            row |= {tag: values.mean(), f"{tag} low": low, f"{tag} high": high}
        row["parameters"] = int(group["parameters"].iloc[0])
        for tag in ("seconds", "sequences_per_second", "padding"):
            row[tag] = group[tag].mean()
        row["epochs"] = int(group["max_epochs"].min())
        members = len(jobs) if not keys else sizes[name if isinstance(name, tuple) else (name,)]
        # A mean over jobs of different lengths is none.
        row["missing"] = members - len(group) + int(group["max_epochs"].nunique() > 1)
        rows.append(row)
    # As objects, because pandas would convert 8 to 8.0 in a column of numbers.
    ranking = pd.DataFrame(rows).astype(dict.fromkeys([*keys, *tied], object))
    sign = -1 if is_higher_better(metric) else 1
    ranking["order"] = sign * ranking[metric]
    ranking["rung"] = -ranking["epochs"] if has_rungs else 0
    ranking["is_part"] = ranking["missing"] > 0
    order = ["is_part", "rung", "order"]
    ranking = ranking.sort_values(order, kind="stable").drop(columns=order)
    if tuned:
        # Of each configuration, the best of its tuned values.
        ranking = ranking.groupby(swept, sort=False).head(1) if swept else ranking.head(1)
    ranking = ranking.reset_index(drop=True)
    ranking.insert(0, "rank", ranking.index + 1)
    return ranking


def _of_repetitions(jobs: pd.DataFrame, repeat: str, tag: str) -> "pd.Series[float]":
    """Return a metric for each repetition; the jobs of a data seed are one, with their mean."""
    return jobs[tag] if repeat == "seed" else jobs.groupby(repeat)[tag].mean()


def _found_jobs(sweep_dir: Path) -> list[Job]:
    """Return the runs in a folder whose sweep.json is missing or lists no jobs."""
    jobs: dict[str, Job] = {}
    for number, folder in enumerate(sorted(sweep_dir.iterdir())):
        summary = read_summary(folder) if folder.is_dir() else None
        if summary is not None:
            config = parse_stored(summary["config"], folder / paths.SUMMARY)
            overrides = stored_overrides(folder) or _overrides_of(config)
            # A second copy of a run is not an independent result.
            jobs.setdefault(run_hash(config), Job(number, folder.name, overrides, config))
    return list(jobs.values())


def _overrides_of(config: Config) -> list[str]:
    """Return overrides that make a configuration: what differs from that of its task."""
    task = f"data={config.data.task}"
    default = _defaults(task)
    own = {key: value for key, value in flatten(config.to_dict()).items() if default.get(key, ABSENT) != value}
    return [
        task,
        *(f"{key}={quoted(value) if isinstance(value, str) else written(value)}" for key, value in own.items()),
    ]


@cache
def _defaults(task: str) -> dict[str, Any]:
    try:
        return flatten(compose([task]).to_dict())
    except ConfigError:
        # Such as a task of another package without a file in conf/.
        return {}


def _record(folder: Path, job: Job, flags: list[str], rungs: list[int] | None) -> dict[str, Any]:
    found = read_summary(folder)
    status = planned_status(folder, job.config, found)
    summary = found or {}
    if rungs and status == "to extend":
        # It goes on from a rung, where it has a result.
        status = "done"
    if status != "done":
        # The metrics so far are not the result of a longer run, and those of another run are none at all.
        summary["metrics"] = {}
    own_end = _own_end(summary, job)
    return {
        "job": job.folder,
        "folder": folder,
        "arguments": [*flags, *job.overrides, *(own_end or _of_rungs(job, rungs))],
        "own_end": own_end,
        "max_epochs": summary["config"]["trainer"]["max_epochs"] if own_end else job.config.trainer.max_epochs,
        "test_sequences": sum((summary.get("sequences_by_length") or {}).values()),
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


def _of_rungs(job: Job, rungs: list[int] | None) -> list[str]:
    """Return the overrides that make the run of a job alone what it is in a sweep with rungs."""
    if not rungs:
        return []
    horizon = job.config.optimizer.horizon
    return [f"trainer.max_epochs={job.config.trainer.max_epochs}"] + [f"optimizer.horizon={horizon}"] * bool(horizon)


def _plain(value: Any) -> Any:
    """Return a value that can be compared and hashed: lists and None are converted to text."""
    return shown_value(value) if value is None or isinstance(value, list) else value


def _python(value: Any) -> Any:
    """Return a Python value: pandas returns NumPy scalars, such as NumPy's bool."""
    return value.item() if isinstance(value, np.generic) else value

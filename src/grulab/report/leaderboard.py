"""A sweep's jobs as tables: which configuration won, by how much, and whether the difference is real."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from scipy import stats

from grulab.config import ConfigError
from grulab.identity import flatten
from grulab.remedies import shown_value
from grulab.tracking.summary import FILE_NAME, read_summary

_LEVEL = 0.95
# What differs between jobs without being what is compared.
_NOT_SWEPT = {"name", "seed"}


@dataclass(frozen=True)
class Leaderboard:
    """What a sweep's folder tells.

    Attributes:
        jobs: a row a job: job, status, error, seed, the swept keys, metrics, parameters, seconds and so on.
        swept: keys whose value differs between jobs, without the seed.
        metric: what the jobs are ranked by.
        ranking: a row a configuration, the best first: the swept keys, and for each metric its mean over seeds and
            the 95 % interval of that mean.
    """

    jobs: pd.DataFrame
    swept: list[str]
    metric: str
    ranking: pd.DataFrame

    @property
    def done(self) -> pd.DataFrame:
        """The jobs that have a result."""
        return self.jobs[self.jobs["status"] == "done"]

    def label(self, row: "pd.Series[Any]") -> str:
        """Return a configuration in words: ``hidden_size 16, num_layers 1``."""
        # pandas hands out NumPy's own true and false.
        values = {key: row[key].item() if isinstance(row[key], np.generic) else row[key] for key in self.swept}
        words = [f"{key.rsplit('.', 1)[-1]} {shown_value(value)}" for key, value in values.items()]
        return ", ".join(words) or "the one configuration"

    def members(self, row: "pd.Series[Any]") -> pd.DataFrame:
        """Return the finished jobs of a configuration."""
        jobs = self.done
        for key in self.swept:
            jobs = jobs[jobs[key] == row[key]]
        return jobs


def read_sweep(sweep_dir: Path) -> Leaderboard:
    """Read the jobs in a sweep's folder, finished or not.

    Raises:
        ConfigError: if there is no such folder, or no job in it.
    """
    if not sweep_dir.is_dir():
        raise ConfigError(f"{sweep_dir}: no such folder")
    folders = [path for path in sorted(sweep_dir.iterdir()) if (path / ".hydra" / "config.yaml").is_file()]
    if not folders:
        raise ConfigError(f"{sweep_dir}: is not a sweep's folder: no folder in it is a job's")
    records = [_job(folder) for folder in folders]
    configs = pd.DataFrame([record.pop("config") for record in records]).map(_plain)
    swept = [str(key) for key in configs if key not in _NOT_SWEPT and configs[key].nunique() > 1]
    jobs = pd.concat([pd.DataFrame(records), configs[[*swept, "seed"]]], axis=1)
    metric = next((record["monitor"] for record in records if record["monitor"]), "val/accuracy")
    return Leaderboard(jobs, swept, metric, _rank(jobs, swept, metric))


def interval(values: "pd.Series[float]") -> float:
    """Return half the width of the 95 % interval of the mean (Student's t); NaN for a single value."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def difference(one: pd.DataFrame, other: pd.DataFrame, metric: str, on: list[str]) -> tuple[float, float, int]:
    """Return the mean of one - other over pairs that agree in ``on``, half its 95 % interval, and how many pairs."""
    pairs = one.merge(other, on=on, suffixes=("_one", "_other"))
    differences = pairs[f"{metric}_one"] - pairs[f"{metric}_other"]
    return float(differences.mean()), interval(differences), len(pairs)


def verdict(board: Leaderboard) -> str:
    """Say whether the first configuration is better than the second, paired over the seeds they share."""
    if len(board.ranking) < 2:
        return "There is nothing to compare: one configuration has results."
    first, second = board.ranking.iloc[0], board.ranking.iloc[1]
    mean, half, pairs = difference(board.members(first), board.members(second), board.metric, ["seed"])
    names = f"{board.label(first)} is ahead of {board.label(second)}"
    if pairs < 2:
        return f"{names}, but they share {pairs} seed(s): at least 2 are needed to tell a difference from chance."
    low, high = mean - half, mean + half
    what = (
        f"by {abs(mean):.4f} in {board.metric} (95 % interval {low:+.4f} to {high:+.4f}, paired over {pairs} seeds)"
    )
    real = low > 0 or high < 0
    return f"{names} {what}: " + ("the difference is real." if real else "that may be chance.")


def effects(board: Leaderboard, key: str) -> pd.DataFrame:
    """Return what a swept key does on its own.

    Returns:
        A row a value: its mean over all jobs and 95 % interval; and the mean difference to the first value, over
        pairs of jobs that agree in everything else, with its interval.
    """
    jobs, rest = board.done, [*(other for other in board.swept if other != key), "seed"]
    values = sorted(jobs[key].unique(), key=lambda value: (isinstance(value, str), value))
    rows = []
    for value in values:
        chosen = jobs[jobs[key] == value]
        mean, half, pairs = difference(chosen, jobs[jobs[key] == values[0]], board.metric, rest)
        scores = chosen[board.metric]
        rows.append([value, len(chosen), scores.mean(), interval(scores), mean, half, pairs])
    columns = ["value", "jobs", "mean", "interval", "difference", "difference_interval", "pairs"]
    return pd.DataFrame(rows, columns=columns)


def _rank(jobs: pd.DataFrame, swept: list[str], metric: str) -> pd.DataFrame:
    done = jobs[jobs["status"] == "done"]
    if done.empty:
        return pd.DataFrame(columns=swept)
    groups = done.groupby(swept, sort=False) if swept else done.groupby(lambda _: 0)
    metrics = [metric, *(tag for tag in ("test/accuracy", "test/loss", "val/loss") if tag != metric)]
    rows = []
    for _, group in groups:
        row: dict[str, Any] = {key: group[key].iloc[0] for key in swept} | {"seeds": len(group)}
        for tag in metrics:
            row |= {tag: group[tag].mean(), f"{tag} interval": interval(group[tag])}
        row["parameters"] = int(group["parameters"].iloc[0])
        for tag in ("seconds", "sequences_per_second", "padding"):
            row[tag] = group[tag].mean()
        rows.append(row)
    ascending = metric.endswith("loss")
    ranking = pd.DataFrame(rows).sort_values(metric, ascending=ascending, kind="stable").reset_index(drop=True)
    ranking.insert(0, "rank", ranking.index + 1)
    return ranking


def _job(folder: Path) -> dict[str, Any]:
    summary = read_summary(folder) or {}
    if not summary and (folder / FILE_NAME).exists():
        summary = {"status": "failed", "error": {"type": "ValueError", "message": f"{FILE_NAME} cannot be read"}}
    composed: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=True)
    error = summary.get("error")
    overrides = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
    assert isinstance(overrides, list)
    return {
        "job": folder.name,
        "folder": folder,
        "overrides": overrides,
        "status": summary.get("status", "pending"),
        "error": f"{error['type']}: {error['message'].splitlines()[0]}" if error else "",
        "monitor": summary.get("monitor"),
        "chance": summary.get("chance"),
        "ceiling": summary.get("ceiling"),
        **{key: summary.get(key) for key in ("parameters", "seconds", "sequences_per_second", "padding")},
        **(summary.get("metrics") or {}),
        "config": flatten(summary.get("config") or composed),
    }


def _plain(value: Any) -> Any:
    """Return a value that can be compared and counted: a list as text."""
    return str(value) if isinstance(value, list) else value

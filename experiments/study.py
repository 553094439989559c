"""Sweeps of a study: the learning rate of each configuration is chosen on seeds of its own, and fresh seeds judge it.

A study names configurations, as overrides. Each is trained at several learning rates with three tuning seeds; where
the best rate is the smallest or the largest, the next one is tried too, and where none learned anything the next
larger one; and the two best get three more seeds, after which the best is looked at for an edge once more. Then
each is trained at its best rate with the seeds that count. A seed is of the weights and of the data, so each run
has sequences of its own. All runs are jobs of ordinary sweeps, under outputs/, and a study that is run again goes
on with them.
"""

import math
import subprocess
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from grulab.config.overrides import written
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.sweep.failures import DIVERGED
from grulab.system.cores import available_cores

LR, SEED = "optimizer.lr", "seed"
LEVEL = 0.05
# A rate is as good as the best if its mean validation accuracy is this close.
_AS_GOOD = 0.005
# What is less above chance has learned nothing.
_LEARNED = 0.05
_TUNING_SEEDS, _MORE_TUNING_SEEDS = range(1000, 1003), range(1003, 1006)
# So often the range of rates is extended.
_EXTENSIONS = 2
_ACCURACIES = ("val/accuracy", "test/accuracy")
_STORED = (*_ACCURACIES, "val/loss")
_GRULAB = str(Path(sys.executable).with_name("grulab"))

Configuration = dict[str, object]


@dataclass(frozen=True)
class Study:
    """The runs of a study.

    Attributes:
        name: of its folder under outputs/studies/.
        common: overrides of all runs.
        solved: the validation accuracy at which runs stop; how far one epoch is beyond it is no merit of a rate.
        rates: learning rates, ascending, each the same factor above the one before.
        seeds: how many seeds judge.
        test_size: sequences that judge a run.
    """

    name: str
    common: Sequence[str]
    solved: float = 1.0
    rates: Sequence[float] = (0.003, 0.01, 0.03, 0.1)
    seeds: int = 10
    test_size: int = 10_000

    def run(self, configurations: Sequence[Configuration]) -> pd.DataFrame:
        """Tune and judge configurations, which have the same keys.

        Returns:
            A row for each configuration and seed: its keys, ``optimizer.lr``, ``seed``, the metrics by tag,
            ``epochs``, ``parameters``, ``seconds``, ``folder``, and ``tuned``: "" if the best rate is inside the
            range of those that were tried, or else "an edge", or "none learned". ``attrs`` has all runs and their
            seconds.
        """
        parts = self._tune(configurations)
        tried = pd.concat(parts)
        chosen = [_best_rates(own, self.solved)[0] for own in _by_configuration(parts)]
        judged = self._sweep("judge", configurations, [[rate] for rate in chosen], range(self.seeds), self.test_size)
        judged["tuned"] = [_how_tuned(tried[tried["index"] == row["index"]], row[LR]) for _, row in judged.iterrows()]
        seconds = tried["seconds"].sum() + judged["seconds"].sum()
        attrs: dict[Hashable | None, Any] = {"runs": len(tried) + len(judged), "seconds": seconds}
        print(f"{self.name}: {cost([judged], attrs)}", flush=True)
        judged = judged.drop(columns="index")
        judged.attrs = attrs
        return judged

    def _tune(self, configurations: Sequence[Configuration]) -> list[pd.DataFrame]:
        factor = self.rates[1] / self.rates[0]
        rates = [list(self.rates) for _ in configurations]
        parts: list[pd.DataFrame] = []
        for extension in range(_EXTENSIONS + 1):
            if any(rates):
                parts.append(self._sweep(f"tune-{extension}", configurations, rates, _TUNING_SEEDS))
            rates = [_beyond(tried, self.solved, factor) for tried in _by_configuration(parts)]
        two_best = [_best_rates(tried, self.solved)[:2] for tried in _by_configuration(parts)]
        parts.append(self._sweep("tune-again", configurations, two_best, _MORE_TUNING_SEEDS))
        # More seeds may have chosen the other of two, and that may be at the edge.
        rates = [_beyond(tried, self.solved, factor) for tried in _by_configuration(parts)]
        if any(rates):
            parts.append(self._sweep("tune-beyond", configurations, rates, [*_TUNING_SEEDS, *_MORE_TUNING_SEEDS]))
        return parts

    def _sweep(
        self,
        part: str,
        configurations: Sequence[Configuration],
        rates: Sequence[Sequence[float]],
        seeds: Sequence[int],
        test_size: int = 100,
    ) -> pd.DataFrame:
        rows = [
            {**configuration, LR: rate, SEED: seed, "data.seed": seed, "index": index}
            for index, configuration in enumerate(configurations)
            for rate in rates[index]
            for seed in seeds
        ]
        found = sweep(f"{self.name}/{part}", [*self.common, f"data.test_size={test_size}"], rows)
        return found.drop(columns="data.seed")


def sweep(name: str, common: Sequence[str], rows: Sequence[Configuration]) -> pd.DataFrame:
    """Run a job for each row, or go on with those that were begun.

    Args:
        name: of the folder under outputs/studies/.
        common: overrides of all jobs.
        rows: the overrides of each job, with the same keys; ``index`` is none.

    Returns:
        The rows with their results; see :meth:`Study.run`. A run that diverged has an accuracy of 0.
    """
    folder = Path("outputs") / "studies" / name
    overrides = pd.DataFrame(rows).drop(columns="index", errors="ignore").astype(object).rename(columns=str)
    swept = [str(key) for key in overrides if overrides[key].nunique(dropna=False) > 1]
    fixed = [f"{key}={written(overrides[key].iloc[0])}" for key in overrides if key not in swept]
    axes = [f"{key}={','.join(map(written, overrides[key].tolist()))}" for key in swept]
    command = [_GRULAB, "train", "-m", *common, *fixed, *axes, f"hydra.sweep.dir={folder}"]
    if len(swept) > 1:
        command.append(f"hydra.sweeper.zip=[{','.join(swept)}]")
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode in (0, 1), (process.stdout + process.stderr)[-3000:]
    known = manifest.read(folder)
    assert known is not None
    results = []
    for row, job in zip(rows, known.jobs, strict=True):
        summary = read_summary(folder / job.folder)
        assert summary is not None, job.folder
        assert (job.config.seed, job.config.optimizer.lr) == (row[SEED], row.get(LR, job.config.optimizer.lr))
        is_done = summary["status"] == "done"
        assert is_done or summary["error"]["type"] == DIVERGED, (job.folder, summary["error"])
        metrics = summary["metrics"] if is_done else dict.fromkeys(_ACCURACIES, 0.0) | {"val/loss": math.inf}
        own = {key: summary.get(key) for key in ("epochs", "parameters", "chance", "ceiling", "seconds")}
        results.append({**row, **metrics, **own, "folder": folder / job.folder})
    return pd.DataFrame(results)


def _by_configuration(parts: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    return [runs for _, runs in pd.concat(parts).groupby("index")]


def _best_rates(runs: pd.DataFrame, solved: float) -> list[float]:
    """Return the rates of a configuration, the best first.

    Of those whose mean validation accuracy is about the best the one that stopped first is the best, then the one
    with the least loss. Where nothing was learned accuracies are luck, and the least loss decides.
    """
    capped = runs.assign(accuracy=runs["val/accuracy"].clip(upper=solved))
    by_rate = capped.groupby(LR).agg({"accuracy": "mean", "epochs": "mean", "val/loss": "mean"})
    by_rate["is_behind"] = by_rate["accuracy"] < by_rate["accuracy"].max() - _AS_GOOD
    by_rate["order"] = np.where(by_rate["is_behind"], -by_rate["accuracy"], 0.0)
    keys = ["is_behind", "order", "epochs", "val/loss"] if _has_learned(runs) else ["val/loss"]
    return [float(rate) for rate in by_rate.sort_values(keys, kind="stable").index]


def _has_learned(runs: pd.DataFrame) -> bool:
    return bool((runs.groupby(LR)["val/accuracy"].mean() > runs["chance"].max() + _LEARNED).any())


def _beyond(runs: pd.DataFrame, solved: float, factor: float) -> list[float]:
    """Return the rate beyond the best one, if that is the least or the most that was tried.

    Where nothing was learned it is the next larger one: few steps over long sequences may take a large rate.
    """
    known = sorted(runs[LR].unique())
    best = _best_rates(runs, solved)[0] if _has_learned(runs) else known[-1]
    if best not in (known[0], known[-1]):
        return []
    return [float(f"{best / factor if best == known[0] else best * factor:.2g}")]


def _how_tuned(runs: pd.DataFrame, rate: float) -> str:
    if not _has_learned(runs):
        return "none learned"
    return "an edge" if rate in (runs[LR].min(), runs[LR].max()) else ""


def share(successes: int, count: int, comparisons: int = 1) -> str:
    """Return a share with its interval, of Clopper and Pearson, at 95 % for all comparisons together."""
    interval = stats.binomtest(successes, count).proportion_ci(1 - LEVEL / comparisons)
    return f"{successes} of {count} ({interval.low:.2f} to {interval.high:.2f})"


def paired(one: "pd.Series[float]", other: "pd.Series[float]", comparisons: int = 1) -> tuple[float, float, float]:
    """Return the mean difference of two series by seed, and its interval at 95 % for all comparisons together."""
    differences = one - other
    mean, count = float(differences.mean()), len(differences)
    half = float(stats.t.ppf(1 - LEVEL / comparisons / 2, count - 1) * differences.std(ddof=1) / math.sqrt(count))
    return mean, mean - half, mean + half


def rank_test(one: "pd.Series[float]", other: "pd.Series[float]") -> float:
    """Return the p value of Mann and Whitney's test, which asks nothing of the distributions."""
    return float(stats.mannwhitneyu(one, other).pvalue)


def exact_test(one: int, other: int, count: int) -> float:
    """Return the p value of Fisher's test for successes of two configurations with so many runs each."""
    return float(stats.fisher_exact([[one, count - one], [other, count - other]]).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def store(path: Path, runs: pd.DataFrame) -> None:
    """Write the runs that a table and a figure are made of, with the metrics that chose and judge them."""
    others = [tag for tag in runs if str(tag).startswith(("train/", "val/", "test/")) and tag not in _STORED]
    runs.drop(columns=["folder", *others], errors="ignore").round(6).to_csv(path, index=False)


def cost(parts: Sequence[pd.DataFrame], attrs: Mapping[Any, Any] | None = None) -> str:
    """Return the number of runs and how long they take, in words.

    Args:
        parts: results of :meth:`Study.run`, or of :func:`sweep`.
        attrs: runs and seconds, if ``parts`` does not have them.
    """
    found = [attrs or part.attrs or {"runs": len(part), "seconds": part["seconds"].sum()} for part in parts]
    runs, seconds = (sum(part[key] for part in found) for key in ("runs", "seconds"))
    cores = available_cores()
    return f"{runs:,.0f} runs, {seconds / 60 / cores:.0f} minutes on {cores} cores."

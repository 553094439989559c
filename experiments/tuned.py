"""Sweeps of a study: the learning rate of each configuration is chosen on seeds of its own, and fresh seeds judge it.

A study names configurations, as overrides. Each is trained at several learning rates with the tuning seeds; where the
best rate is the smallest or the largest, the next one is tried too. Then each is trained at its best rate with the
seeds that count. A seed is of the weights and of the data, so each run has sequences of its own. All runs are jobs of
ordinary sweeps, under outputs/, and a study that is run again goes on with them.
"""

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy import stats

from grulab.config.overrides import written
from grulab.run_folder.metrics_csv import read_table
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest

LR, SEED = "optimizer.lr", "seed"
_GRULAB = str(Path(sys.executable).with_name("grulab"))
_TUNING_SEEDS = range(1000, 1003)
# So often the range of rates is extended.
_EXTENSIONS = 2
LEVEL = 0.05

Configuration = dict[str, object]


@dataclass(frozen=True)
class Study:
    """The runs of a study.

    Attributes:
        name: of its folder under outputs/studies/.
        common: overrides of all runs.
        rates: learning rates, ascending, each the same factor above the one before.
        seeds: how many seeds judge.
        test_size: sequences that judge a run.
    """

    name: str
    common: Sequence[str]
    rates: Sequence[float] = (0.003, 0.01, 0.03, 0.1)
    seeds: int = 10
    test_size: int = 10_000

    def run(self, configurations: Sequence[Configuration]) -> pd.DataFrame:
        """Tune and judge configurations, which have the same keys.

        Returns:
            A row for each configuration and seed: its keys, ``optimizer.lr``, ``seed``, the metrics by tag,
            ``epochs``, ``parameters``, ``folder``; and ``edge``, whether the rate is still the least or the most.
        """
        began, runs = time.perf_counter(), 0
        places = range(len(configurations))
        rates = {place: list(self.rates) for place in places}
        factor = self.rates[1] / self.rates[0]
        tried = pd.DataFrame()
        for extension in range(_EXTENSIONS + 1):
            new = [
                {**configuration, LR: rate, SEED: seed, "index": index}
                for index, configuration in enumerate(configurations)
                for rate in rates[index]
                for seed in _TUNING_SEEDS
            ]
            if not new:
                break
            found = self._sweep(f"tune-{extension}", new, "data.test_size=100")
            tried = pd.concat([tried, found])
            of_place = [tried[tried["index"] == place] for place in places]
            best = [_best_rate(part) for part in of_place]
            known = [sorted(part[LR].unique()) for part in of_place]
            rates = {place: _beyond(best[place], known[place], factor) for place in places}
        rows = [
            {**configuration, LR: best[index], SEED: seed, "index": index}
            for index, configuration in enumerate(configurations)
            for seed in range(self.seeds)
        ]
        judged = self._sweep("judge", rows, f"data.test_size={self.test_size}")
        judged["edge"] = judged["index"].map(lambda index: best[index] in (known[index][0], known[index][-1]))
        runs = len(tried) + len(judged)
        print(f"{self.name}: {runs} runs, {time.perf_counter() - began:.0f} s", flush=True)
        judged.attrs |= {"runs": runs, "seconds": time.perf_counter() - began}
        return judged.drop(columns="index")

    def _sweep(self, part: str, rows: Sequence[Configuration], *more: str) -> pd.DataFrame:
        found = sweep(f"{self.name}/{part}", [*self.common, *more], [{**row, "data.seed": row[SEED]} for row in rows])
        return found.drop(columns="data.seed")


def sweep(name: str, common: Sequence[str], rows: Sequence[Configuration]) -> pd.DataFrame:
    """Run a job for each row, or go on with those that were begun.

    Args:
        name: of the folder under outputs/studies/.
        common: overrides of all jobs.
        rows: the overrides of each job, with the same keys; ``index`` is none.

    Returns:
        The rows with their results; see :meth:`Study.run`.
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
    assert len(known.jobs) == len(rows)
    results = []
    for row, job in zip(rows, known.jobs, strict=True):
        summary = read_summary(folder / job.folder)
        assert summary is not None
        # A run whose loss was not finite has no result: it is as bad as can be.
        is_done = summary["status"] == "done"
        metrics = summary["metrics"] if is_done else {"val/accuracy": 0.0, "val/loss": math.inf, "test/accuracy": 0.0}
        own = {key: summary.get(key) for key in ("epochs", "best_epoch", "parameters", "chance", "ceiling")}
        results.append({**row, **metrics, **own, "folder": folder / job.folder})
    return pd.DataFrame(results)


def _best_rate(runs: pd.DataFrame) -> float:
    """Return the rate with the best mean validation accuracy; of equal ones the quickest, then the least loss."""
    by_rate = runs.groupby(LR).agg({"val/accuracy": "mean", "epochs": "mean", "val/loss": "mean"})
    by_rate["val/accuracy"] = by_rate["val/accuracy"].round(3)
    order = by_rate.sort_values(["val/accuracy", "epochs", "val/loss"], ascending=[False, True, True])
    return float(order.index[0])


def _beyond(best: float, known: list[float], factor: float) -> list[float]:
    """Return the rate beyond the best one, if that is the least or the most that was tried."""
    if best == known[0]:
        return [_rounded(best / factor)]
    if best == known[-1]:
        return [_rounded(best * factor)]
    return []


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


def epochs_until(folder: Path, tag: str, value: float) -> float:
    """Return the first epoch of a run at which a metric was at least this good; infinity if none was."""
    table = read_table(folder)
    assert table is not None
    reached = table["epoch"][table[tag] >= value]
    return float(reached.iloc[0]) if len(reached) else math.inf


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
    """Write the runs that a table and a figure are made of."""
    runs.drop(columns="folder").round(6).to_csv(path, index=False)


def cost(runs: Sequence[pd.DataFrame], cores: int) -> str:
    """Return the number of runs and the wall time, in words."""
    count, seconds = (sum(int(part.attrs[key]) for part in runs) for key in ("runs", "seconds"))
    return f"{count:,} runs, {seconds / 60:.0f} minutes on {cores} cores"

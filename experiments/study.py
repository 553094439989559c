"""Sweeps of a study: the learning rate of each configuration is chosen on seeds of its own, and fresh seeds judge it.

A study names configurations, as overrides. Each is trained at several learning rates with two tuning seeds; where
the best rate is the smallest or the largest, the next one is tried too, and where none learned anything the next
larger one; and the two best get three more seeds, after which the better of them is looked at for an edge once
more. (A rate that two seeds alone have seen is not looked at again, however the two best fare.) Then each is trained
at its best rate with the seeds that count. A seed is of the weights and of the data, so each run has sequences of its
own. All runs are jobs of ordinary sweeps, under outputs/studies/, and a study that is run again goes on with them.
"""

import math
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from grulab.config.compose import compose
from grulab.config.overrides import written
from grulab.config.same_run import flatten
from grulab.config_error import ConfigError
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.sweep.job import Job
from grulab.sweep.job_scores import has_diverged
from grulab.sweep.status import cause_of, result_of
from grulab.system.cores import available_cores
from grulab.tasks.registry import build_task

LR, SEED, DATA_SEED = "optimizer.lr", "seed", "data.seed"
# A rate is as good as the best if its mean validation accuracy is this close.
_AS_GOOD = 0.005
# What is less above chance has learned nothing.
_LEARNED = 0.05
_TUNING_SEEDS, _MORE_TUNING_SEEDS = range(1000, 1002), range(1002, 1005)
# Where small rates are hopeless: short trainings, and long sequences.
LARGE_RATES = (0.01, 0.03, 0.1, 0.33)
# So often the range of rates is extended before more seeds look at the best.
_EXTENSIONS = 2
_METRICS = ("val/accuracy", "test/accuracy", "val/loss")
# Of a run that is done, as in its summary.json.
_RESULTS = ("epochs", "parameters", "chance", "ceiling", "seconds")
# What differs from one time to the next.
_NOT_STORED = ["seconds", "folder"]
# The validation accuracy at which until_learned stops.
STOPS = 0.999

Configuration = dict[str, object]


@dataclass(frozen=True)
class Runs:
    """The runs of a study.

    Attributes:
        judged: a row for each configuration and seed: its keys, ``optimizer.lr``, ``seed``, the metrics by tag,
            ``diverged``, ``epochs``, ``parameters``, ``chance``, ``ceiling``, ``seconds``, ``folder``, and ``tuned``:
            "" if the best rate is inside the range of those that were tried, or else "an edge", or "none learned".
        tuning: the same, but for ``tuned``, of the runs that chose the rates.
    """

    judged: pd.DataFrame
    tuning: pd.DataFrame

    def labelled(self, **columns: str | int) -> "Runs":
        """Return the runs with more columns."""
        return Runs(self.judged.assign(**columns), self.tuning.assign(**columns))

    def store(self, folder: Path, keys: Sequence[str]) -> None:
        """Write what tables and figures are made of, runs.csv, and what chose the rates, tuning.csv.

        Args:
            folder: of the study.
            keys: the columns that tell configurations apart.
        """
        folder.mkdir(exist_ok=True)
        store(folder / "runs.csv", self.judged)
        by_rate = self.tuning.groupby([*keys, LR], sort=False, dropna=False)
        columns: dict[str, tuple[str, str]] = {
            "seeds": (SEED, "size"),
            "diverged": ("diverged", "sum"),
            **{tag: (tag, "mean") for tag in ("val/accuracy", "val/loss", "epochs")},
        }
        store(folder / "tuning.csv", by_rate.agg(**columns).reset_index().sort_values([*keys, LR], kind="stable"))


def until_learned(epochs: int) -> list[str]:
    """Return overrides with which runs train on fresh sequences, up to so many epochs of 200 steps, or to STOPS."""
    return [
        "data.fresh=true",
        "data.train_size=6400",
        "data.val_size=1000",
        f"trainer.max_epochs={epochs}",
        f"trainer.early_stopping_threshold={STOPS}",
        "trainer.gradient_clip_val=1",
        "trainer.accelerator=cpu",
        "optimizer.schedule=linear",
    ]


def joined(parts: Sequence[Runs]) -> Runs:
    """Return the runs of several studies as those of one."""
    return Runs(
        *(pd.concat([getattr(part, name) for part in parts], ignore_index=True) for name in ("judged", "tuning"))
    )


@dataclass(frozen=True)
class Study:
    """Configurations that are tuned and judged in the same way.

    Attributes:
        name: of its folder under outputs/studies/.
        common: overrides of all runs.
        solved: the validation accuracy at which runs stop; how far one epoch is beyond it is no merit of a rate.
        rates: learning rates, ascending; the range is extended by the factor between the first two.
        seeds: those that judge, none of those that tune.
        test_size: sequences that judge a run.
    """

    name: str
    common: Sequence[str]
    solved: float = 1.0
    rates: Sequence[float] = (0.003, 0.01, 0.03, 0.1)
    seeds: Sequence[int] = range(10)
    test_size: int = 10_000

    def __post_init__(self) -> None:
        tuning = {*_TUNING_SEEDS, *_MORE_TUNING_SEEDS}
        assert self.seeds, "a study without seeds that judge"
        assert not tuning & set(self.seeds), "seeds that tune and judge"
        assert len(self.rates) > 1, "one rate is not tuned"
        assert list(self.rates) == sorted(set(self.rates)), "rates are ascending"

    def run(self, configurations: Sequence[Configuration]) -> Runs:
        """Tune and judge configurations, which have the same keys.

        Raises:
            SystemExit: if a run failed, or if the folder holds other runs than this study's.
        """
        tuning = self._tune(configurations)
        tried = [runs_of(tuning, configuration) for configuration in configurations]
        chosen = [_best_rates(own, self.solved)[0] for own in tried]
        judged = self._sweep("judge", configurations, [[rate] for rate in chosen], self.seeds, self.test_size)
        how = [_how_tuned(own, rate) for own, rate in zip(tried, chosen, strict=True)]
        judged["tuned"] = np.repeat(how, len(self.seeds))
        print(f"{self.name}: {cost(judged, tuning)}", flush=True)
        return Runs(judged, tuning)

    def _tune(self, configurations: Sequence[Configuration]) -> pd.DataFrame:
        tried = self._sweep("tune-0", configurations, [self.rates] * len(configurations), _TUNING_SEEDS)
        for extension in range(_EXTENSIONS):
            tried = self._beyond_edges(f"tune-{extension + 1}", configurations, tried, _TUNING_SEEDS)
        two_best = [_best_rates(runs_of(tried, own), self.solved)[:2] for own in configurations]
        tried = pd.concat([tried, self._sweep("tune-again", configurations, two_best, _MORE_TUNING_SEEDS)])
        # More seeds may have chosen the other of two, and that may be at the edge.
        return self._beyond_edges("tune-beyond", configurations, tried, [*_TUNING_SEEDS, *_MORE_TUNING_SEEDS])

    def _beyond_edges(
        self, part: str, configurations: Sequence[Configuration], tried: pd.DataFrame, seeds: Sequence[int]
    ) -> pd.DataFrame:
        factor = self.rates[1] / self.rates[0]
        rates = [_beyond(runs_of(tried, own), self.solved, factor) for own in configurations]
        return pd.concat([tried, self._sweep(part, configurations, rates, seeds)]) if any(rates) else tried

    def _sweep(
        self,
        part: str,
        configurations: Sequence[Configuration],
        rates: Sequence[Sequence[float]],
        seeds: Sequence[int],
        test_size: int = 100,
    ) -> pd.DataFrame:
        rows = [
            {**configuration, LR: rate, SEED: seed, DATA_SEED: seed}
            for configuration, own in zip(configurations, rates, strict=True)
            for rate in own
            for seed in seeds
        ]
        found = sweep(f"{self.name}/{part}", [*self.common, f"data.test_size={test_size}"], rows)
        return found.drop(columns=DATA_SEED)


def sweep(name: str, common: Sequence[str], rows: Sequence[Configuration]) -> pd.DataFrame:
    """Run a job for each row, or go on with those that were begun.

    Args:
        name: of the folder under outputs/studies/.
        common: overrides of all jobs.
        rows: the overrides of each job, with the same keys.

    Returns:
        The rows with their results; see :class:`Runs`. A run that diverged has the accuracy of guessing.

    Raises:
        SystemExit: as :meth:`Study.run`.
    """
    assert rows, "a sweep without runs"
    folder = Path("outputs") / "studies" / name
    overrides = pd.DataFrame(rows).astype(object).rename(columns=str)
    swept = [str(key) for key in overrides if overrides[key].nunique(dropna=False) > 1]
    fixed = [f"{key}={written(overrides[key].iloc[0])}" for key in overrides if key not in swept]
    axes = [f"{key}={','.join(map(written, overrides[key].tolist()))}" for key in swept]
    zipped = [f"hydra.sweeper.zip=[{','.join(swept)}]"] if len(swept) > 1 else []
    arguments = [*common, *fixed, *axes, *zipped]
    with _errors_in_one_line():
        known = manifest.read(folder)
        # The same arguments make another run where a default has changed.
        first = compose([*common, *(f"{key}={written(value)}" for key, value in rows[0].items())])
    if known is not None:
        if known.arguments != arguments or len(known.jobs) != len(rows) or known.jobs[0].config != first:
            raise SystemExit(f"{folder} holds runs of another version of this study: move it away, or delete it")
        for line in manifest.what_changed(known):
            print(f"{folder}: warning: {line}", flush=True)
    if known is None or not all(_is_over(folder / job.folder, job) for job in known.jobs):
        known = _launch(folder, arguments)
    return pd.DataFrame([_result(row, job, folder) for row, job in zip(rows, known.jobs, strict=True)])


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise SystemExit(str(error)) from None


def _is_over(folder: Path, job: Job) -> bool:
    return result_of(folder, job.config) is not None or has_diverged(folder)


def _launch(folder: Path, arguments: Sequence[str]) -> manifest.Manifest:
    print(f"{folder} ...", flush=True)
    command = [sys.executable, "-m", "grulab", "train", "-m", *arguments, f"hydra.sweep.dir={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        # A terminal has interrupted the sweep as well, which takes two signals at a time for one, and saves its runs.
        process.send_signal(signal.SIGINT)
        with suppress(KeyboardInterrupt):
            process.communicate()
        raise SystemExit(f"{folder}: interrupted; the same command goes on") from None
    with _errors_in_one_line():
        known = manifest.read(folder)
    if known is None or process.returncode not in (0, 1):
        raise SystemExit(f"{folder}: the sweep ended with {process.returncode}\n{output[-3000:]}")
    return known


def _result(row: Configuration, job: Job, folder: Path) -> Configuration:
    config = flatten(job.config.to_dict())
    path = folder / job.folder
    summary = read_summary(path) or {}
    found = flatten(summary.get("config", config))
    differing = [key for key, value in {**config, **row}.items() if not config[key] == found.get(key) == value]
    if differing:
        raise SystemExit(f"{path} holds a run with another {', '.join(differing)}: move it away, or delete it")
    own = {key: summary.get(key) for key in _RESULTS}
    if summary.get("status") == "done":
        return {**row, **summary["metrics"], "diverged": False, **own, "folder": path}
    if not has_diverged(path):
        raise SystemExit(f"{path} failed: {cause_of(path, job.config)}; see its run.log")
    task = build_task(job.config.data)
    bounds = {"chance": task.chance, "ceiling": task.ceiling()}
    metrics = {tag: math.inf if tag == "val/loss" else task.chance for tag in _METRICS}
    return {
        **row,
        **metrics,
        "diverged": True,
        **own,
        **bounds,
        "folder": path,
    }


def runs_of(runs: pd.DataFrame, configuration: Mapping[str, object]) -> pd.DataFrame:
    """Return the runs of a configuration, or of part of one."""
    return runs[np.logical_and.reduce([runs[key] == value for key, value in configuration.items()])]


def _best_rates(runs: pd.DataFrame, solved: float) -> list[float]:
    """Return the rates of a configuration that the most seeds looked at, the best first.

    Of those whose mean validation accuracy is about the best the one that stopped first is the best, then the one
    with the least loss. Where nothing was learned accuracies are luck, and the least loss decides.
    """
    seen = _most_seen(runs)
    capped = seen.assign(accuracy=seen["val/accuracy"].clip(upper=solved))
    by_rate = capped.groupby(LR).agg({"accuracy": "mean", "epochs": "mean", "val/loss": "mean"})
    by_rate["is_behind"] = by_rate["accuracy"] < by_rate["accuracy"].max() - _AS_GOOD
    by_rate["order"] = np.where(by_rate["is_behind"], -by_rate["accuracy"], 0.0)
    keys = ["is_behind", "order", "epochs", "val/loss"] if _has_learned(runs) else ["val/loss"]
    return [float(rate) for rate in by_rate.sort_values(keys, kind="stable").index]


def _most_seen(runs: pd.DataFrame) -> pd.DataFrame:
    seeds = runs.groupby(LR)[SEED].transform("size")
    seen: pd.DataFrame = runs[seeds == seeds.max()]
    return seen


def _has_learned(runs: pd.DataFrame) -> bool:
    means = _most_seen(runs).groupby(LR)["val/accuracy"].mean()
    return bool((means > runs["chance"].max() + _LEARNED).any())


def _beyond(runs: pd.DataFrame, solved: float, factor: float) -> list[float]:
    """Return the rate beyond the best one, if that is the least or the most that was tried.

    Where nothing was learned it is the next larger one, for few steps over long sequences may take a large rate, or
    the next smaller one if all runs diverged.
    """
    known = sorted(runs[LR].unique())
    at_a_loss = known[0] if runs["diverged"].all() else known[-1]
    best = _best_rates(runs, solved)[0] if _has_learned(runs) else at_a_loss
    if best not in (known[0], known[-1]):
        return []
    return [float(f"{best / factor if best == known[0] else best * factor:.2g}")]


def _how_tuned(runs: pd.DataFrame, rate: float) -> str:
    if not _has_learned(runs):
        return "none learned"
    return "an edge" if rate in (runs[LR].min(), runs[LR].max()) else ""


def store(path: Path, runs: pd.DataFrame) -> None:
    """Write a table of runs, without what differs from one time to the next."""
    others = [tag for tag in runs if str(tag).startswith(("train/", "val/", "test/")) and tag not in _METRICS]
    runs.drop(columns=[*_NOT_STORED, *others], errors="ignore").round(6).to_csv(path, index=False)


def cost(*runs: pd.DataFrame) -> str:
    """Return the number of runs and how long they take, in words."""
    cores = available_cores()
    count, seconds = sum(map(len, runs)), sum(float(part["seconds"].sum()) for part in runs)
    return f"{count:,} runs, {seconds / 60 / cores:.0f} minutes on {cores} cores (the sum of their own times)."

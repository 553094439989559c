"""What studies share: rates are chosen by their rule, tests and intervals are those of the textbooks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from experiments import study as tuned
from experiments.study import LR, Study, holm, paired, share
from experiments.study_report import compared, differences, verdict
from scipy import stats

from grulab.sweep import manifest
from tests.conftest import SMALL


def test_the_rate_is_the_best_then_the_quickest_then_the_surest() -> None:
    runs = pd.DataFrame(
        [
            [0.1, 0.99, 5, 0.2],
            [0.2, 0.9904, 4, 0.3],
            [0.3, 0.9901, 4, 0.1],
            [0.4, 0.8, 1, 0.0],
        ],
        columns=[LR, "val/accuracy", "epochs", "val/loss"],
    )
    runs["chance"] = 0.5
    # How far an epoch went beyond the threshold does not count, and 0.8 is behind whatever it took.
    assert tuned._best_rates(runs, 0.99) == [0.3, 0.2, 0.1, 0.4]
    assert tuned._best_rates(runs[runs[LR] != 0.3], 1) == [0.2, 0.1, 0.4]
    # Nothing was learned: the least loss.
    assert tuned._best_rates(runs.assign(chance=0.97), 1) == [0.4, 0.3, 0.1, 0.2]
    assert tuned._beyond(runs, 1, 2) == []
    assert tuned._beyond(runs[runs[LR] >= 0.3], 1, 2) == [0.15]
    assert tuned._beyond(runs[runs[LR] <= 0.3], 1, 2) == [0.6]
    # Nothing was learned: a larger one.
    assert tuned._beyond(runs[runs[LR] <= 0.3].assign(chance=0.97), 1, 2) == [0.6]
    assert tuned._beyond(runs.assign(chance=0.97), 1, 2) == [0.8]
    assert tuned._how_tuned(runs, 0.3) == ""
    assert tuned._how_tuned(runs, 0.4) == "an edge"
    assert tuned._how_tuned(runs.assign(chance=0.97), 0.3) == "none learned"


def test_a_study_tunes_on_seeds_of_its_own_and_goes_on_with_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study("small", SMALL, rates=(0.003, 0.03, 0.3), seeds=3, test_size=150)
    configurations: list[tuned.Configuration] = [{"model.hidden_size": size} for size in (2, 8)]
    first = study.run(configurations)
    assert first.groupby("model.hidden_size")["seed"].apply(list).tolist() == [[0, 1, 2]] * 2
    assert first.groupby("model.hidden_size")[LR].nunique().tolist() == [1, 1]
    known = {part: manifest.read(tmp_path / "outputs" / "studies" / "small" / part) for part in ("tune-0", "judge")}
    seeds = {part: {job.config.seed for job in found.jobs} for part, found in known.items() if found}
    assert seeds == {"tune-0": {1000, 1001, 1002}, "judge": {0, 1, 2}}
    times = [path.stat().st_mtime_ns for path in first["folder"].map(lambda folder: folder / "summary.json")]
    again = study.run(configurations)
    assert times == [path.stat().st_mtime_ns for path in again["folder"].map(lambda folder: folder / "summary.json")]
    pd.testing.assert_frame_equal(first, again)
    found = differences(first, [("8 against 2", {"model.hidden_size": 8}, {"model.hidden_size": 2})])
    assert found["comparison"].tolist() == ["8 against 2"]
    assert f"{found['mean'].iloc[0]:+.3f} (" in compared(found).table["difference"].iloc[0]
    assert verdict(0.03, 0.02, 0.04, 0.01) == "better"
    assert verdict(-0.03, -0.04, -0.02, 0.01) == "worse"
    assert verdict(0.002, -0.001, 0.005, 0.2) == "the same"
    assert verdict(0.005, 0.004, 0.006, 0.001) == "the same"
    assert verdict(0.03, 0.02, 0.04, 0.2) == verdict(0.02, -0.01, 0.05, 0.01) == "open"


def test_intervals_and_corrections() -> None:
    generator = np.random.default_rng(0)
    one, other = (pd.Series(generator.standard_normal(8)) for _ in range(2))
    mean, low, high = paired(one, other)
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx(((one - other).mean(), interval.low, interval.high))
    assert paired(one, other, 10)[1] < low
    # Holm 1979: the smallest times the number of all, the next times one less, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert share(10, 10) == "10 of 10 (0.69 to 1.00)"

"""What studies share: rates are chosen by their rule, tests and intervals are those of the textbooks."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from experiments import study as studies
from experiments.capacity.measure import COUNTS, SIZES, exponent
from experiments.length.measure import _trained
from experiments.seeds.measure import reversed_share, seeds_for
from experiments.statistics import exact_test, holm, interval_of_median, jackknife, paired, share
from experiments.study import LR, Study, joined, sweep
from experiments.study_report import compared, differences, results, verdict
from scipy import stats

from grulab import compose
from grulab.run_folder.summary import write_summary
from grulab.sweep import manifest
from tests.conftest import LIMIT, SMALL, Run, statuses

SIZE = "model.hidden_size"


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
    runs["chance"], runs["seed"], runs["diverged"] = 0.5, 1000, False
    # How far an epoch went beyond the threshold does not count, and 0.8 is behind whatever it took.
    assert studies._best_rates(runs, 0.99) == [0.3, 0.2, 0.1, 0.4]
    assert studies._best_rates(runs[runs[LR] != 0.3], 1) == [0.2, 0.1, 0.4]
    # What more seeds looked at is not left for what was lucky with fewer.
    more = pd.concat([runs, runs[runs[LR] <= 0.2].assign(seed=1001)])
    assert studies._best_rates(more, 0.99) == [0.2, 0.1]
    # Nothing was learned: the least loss.
    assert studies._best_rates(runs.assign(chance=0.97), 1) == [0.4, 0.3, 0.1, 0.2]
    assert studies._beyond(runs, 1, 2) == []
    assert studies._beyond(runs[runs[LR] >= 0.3], 1, 2) == [0.15]
    assert studies._beyond(runs[runs[LR] <= 0.3], 1, 2) == [0.6]
    # Nothing was learned: a larger one.
    assert studies._beyond(runs[runs[LR] <= 0.3].assign(chance=0.97), 1, 2) == [0.6]
    assert studies._beyond(runs.assign(chance=0.97), 1, 2) == [0.8]
    # All diverged: a smaller one.
    assert studies._beyond(runs.assign(chance=0.97, diverged=True), 1, 2) == [0.05]
    assert studies._beyond(runs.assign(chance=0.97, diverged=runs[LR] == 0.1), 1, 2) == [0.8]
    assert studies._how_tuned(runs, 0.3) == ""
    assert studies._how_tuned(runs, 0.4) == "an edge"
    assert studies._how_tuned(runs.assign(chance=0.97), 0.3) == "none learned"
    # What one seed has learned at a rate that more did not look at is no evidence for another rate.
    assert studies._how_tuned(more.assign(**{"val/accuracy": [0.5, 0.5, 0.9, 0.9, 0.5, 0.5]}), 0.1) == "none learned"


@pytest.mark.parametrize(
    "wrong", [{"seeds": ()}, {"seeds": range(995, 1001)}, {"rates": (0.1,)}, {"rates": (0.1, 0.01)}]
)
def test_a_study_has_rates_in_order_and_seeds_of_its_own(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        Study("wrong", SMALL, **wrong)


def test_a_study_tunes_on_seeds_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[list[str], list[studies.Configuration]]] = {}
    # With two seeds 0.1 looks best, and with more of them 1, which is the largest that was tried then.
    first, more = {0.01: 0.7, 0.1: 0.9, 1.0: 0.85}, {1.0: 0.95}

    def trained(name: str, common: Sequence[str], rows: Sequence[studies.Configuration]) -> pd.DataFrame:
        seen[name.removeprefix("small/")] = list(common), list(rows)
        found = pd.DataFrame(rows)
        found["val/accuracy"] = [
            (first if seed < 1002 else more).get(rate, 0.6)
            for seed, rate in zip(found["seed"], found[LR], strict=True)
        ]
        return found.assign(chance=0.5, epochs=1, seconds=1, diverged=False, **{"val/loss": 1})

    monkeypatch.setattr(studies, "sweep", trained)
    study = Study("small", ["data=keep"], rates=(0.001, 0.01), seeds=range(3), test_size=150)
    found = study.run([{SIZE: 2}, {SIZE: 8}])
    tuning = {
        part: (sorted({row[LR] for row in rows}), sorted({row["seed"] for row in rows}))
        for part, (_, rows) in seen.items()
    }
    # As often as it may the range is extended at its upper end, and once more where more seeds choose the edge.
    assert tuning == {
        "tune-0": ([0.001, 0.01], [1000, 1001]),
        "tune-1": ([0.1], [1000, 1001]),
        "tune-2": ([1.0], [1000, 1001]),
        "tune-again": ([0.1, 1.0], [1002, 1003, 1004]),
        "tune-beyond": ([10.0], [1000, 1001, 1002, 1003, 1004]),
        "judge": ([1.0], [0, 1, 2]),
    }
    assert list(seen) == list(tuning)
    assert all(row["data.seed"] == row["seed"] for _, rows in seen.values() for row in rows)
    sizes = {part: common for part, (common, _) in seen.items()}
    assert sizes.pop("judge") == ["data=keep", "data.test_size=150"]
    assert set(map(tuple, sizes.values())) == {("data=keep", "data.test_size=100")}
    assert found.judged.groupby(SIZE)["seed"].apply(list).tolist() == [[0, 1, 2]] * 2
    assert found.judged.groupby(SIZE)[LR].nunique().tolist() == [1, 1]
    assert found.judged["tuned"].tolist() == [""] * 6
    assert len(found.tuning) == 2 * (4 * 2 + 2 * 3 + 5)


def test_a_study_goes_on_with_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Study, "_beyond_edges", lambda self, part, configurations, tried, seeds: tried)
    study = Study("small", SMALL, rates=(0.01, 0.1), seeds=range(2))
    configurations: list[studies.Configuration] = [{SIZE: size} for size in (2, 8)]
    first = study.run(configurations)
    assert first.judged.groupby(SIZE)["seed"].apply(list).tolist() == [[0, 1]] * 2
    folder = tmp_path / "outputs" / "studies" / "small"
    times = [path.stat().st_mtime_ns for path in folder.glob("*/*/summary.json")]
    again = study.run(configurations)
    assert times == [path.stat().st_mtime_ns for path in folder.glob("*/*/summary.json")]
    pd.testing.assert_frame_equal(first.judged, again.judged)
    pd.testing.assert_frame_equal(first.tuning, again.tuning)
    joined([first.labelled(part="a"), again.labelled(part="b")]).store(tmp_path, ["part", SIZE])
    stored, tuning = pd.read_csv(tmp_path / "runs.csv"), pd.read_csv(tmp_path / "tuning.csv")
    assert stored["part"].tolist() == ["a"] * 4 + ["b"] * 4
    assert "seconds" not in stored
    assert tuning.groupby("part")["seeds"].sum().tolist() == [len(first.tuning)] * 2
    best = first.tuning[(first.tuning[SIZE] == 8) & (first.tuning[LR] == 0.1)]
    row = tuning[(tuning["part"] == "a") & (tuning[SIZE] == 8) & (tuning[LR] == 0.1)].iloc[0]
    assert row["val/accuracy"] == pytest.approx(best["val/accuracy"].mean(), abs=1e-6)
    # Another order of the same runs, or other overrides: what is there is not taken for them.
    with pytest.raises(SystemExit, match="another version of this study: move it away"):
        study.run(configurations[::-1])
    with pytest.raises(SystemExit, match="small/tune-0 holds runs"):
        Study("small", [*SMALL, "trainer.max_epochs=3"], rates=study.rates, seeds=study.seeds).run(configurations)
    (tmp_path / "outputs" / "studies" / "small" / "tune-0").rename(folder / "tune-1")
    with pytest.raises(SystemExit, match="small/tune-1 holds runs"):
        study._sweep("tune-1", configurations[:1], [study.rates], [1000, 1001])


def test_a_run_that_diverges_guesses_and_one_that_fails_ends_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows: list[studies.Configuration] = [{LR: rate, "seed": 0} for rate in (0.01, 2e37)]
    found = sweep("wild", SMALL, rows)
    assert found["diverged"].tolist() == [False, True]
    assert found["test/accuracy"].iloc[1] == found["chance"].iloc[0] == found["chance"].iloc[1]
    assert math.isinf(found["val/loss"].iloc[1])
    assert found["ceiling"].nunique() == 1
    with pytest.raises(SystemExit, match=r"data.train_size=0"):
        sweep("wrong", [*SMALL, "data.train_size=0"], rows)
    with pytest.raises(SystemExit, match=r"wrong: the sweep ended with 2"):
        sweep("wrong", SMALL, [*rows, rows[1]])
    folder = tmp_path / "outputs" / "studies" / "wild"
    known = manifest.read(folder)
    assert known is not None
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "what_changed", lambda known: ["torch has changed"])
        pd.testing.assert_frame_equal(sweep("wild", SMALL, rows), found)
    assert capsys.readouterr().out.endswith("outputs/studies/wild: warning: torch has changed\n")
    # Another row's job, and results of a run that had another seed, or was trained for longer.
    with pytest.raises(SystemExit, match=rf"{known.jobs[1].folder} holds a run with another optimizer.lr: move"):
        studies._result(rows[0], known.jobs[1], folder)
    own = json.loads((folder / known.jobs[0].folder / "summary.json").read_text())
    for key, change in (("seed", {"seed": 7}), ("trainer.max_epochs", {"trainer": {"max_epochs": 9}})):
        changed = own["config"] | change
        changed["trainer"] = own["config"]["trainer"] | change.get("trainer", {})
        write_summary(folder / known.jobs[0].folder, own | {"config": changed})
        with pytest.raises(SystemExit, match=f"holds a run with another {key}: move"):
            studies._result(rows[0], known.jobs[0], folder)
    # The same arguments with other defaults are another study.
    for default in ("model.update_bias=chrono", "trainer.max_epochs=3"):
        with monkeypatch.context() as patch:
            patch.setattr(studies, "compose", lambda overrides, default=default: compose([*overrides, default]))
            with pytest.raises(SystemExit, match="wild holds runs of another version"):
                sweep("wild", SMALL, rows)
    content = json.loads((folder / "sweep.json").read_text())
    content["jobs"].pop()
    (folder / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="wild holds runs of another version"):
        sweep("wild", SMALL, rows)
    (folder / "sweep.json").write_text("{")
    with pytest.raises(SystemExit, match=r"sweep.json: .* move it away"):
        sweep("wild", SMALL, rows)


@pytest.mark.parametrize("send", [os.killpg, os.kill])
def test_an_interrupted_study_saves_its_runs(tmp_path: Path, send: Callable[[int, int], None]) -> None:
    """A terminal sends Ctrl-C to the sweep of the study as well, somebody else to the study alone."""
    program = f"""
from experiments.study import sweep
sweep("long", {[*SMALL, "model.backend=torch", "trainer.max_epochs=3000"]}, [{{"seed": seed}} for seed in range(2)])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    folder = tmp_path / "outputs" / "studies" / "long"
    began = time.monotonic()
    try:
        # Two epochs: a checkpoint is written after the first.
        while sum(path.read_text().count("\n") > 2 for path in folder.glob("0*/metrics.csv")) < 2:
            assert time.monotonic() - began < LIMIT
            time.sleep(0.1)
        send(process.pid, signal.SIGINT)
        error = process.communicate(timeout=LIMIT)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    assert error == "outputs/studies/long: interrupted; the same command goes on\n"
    assert process.returncode == 1
    assert statuses(folder) == ["interrupted"] * 2
    assert len(list(folder.glob("0*/checkpoints/last.ckpt"))) == 2


def test_a_damaged_checkpoint_of_a_study_is_named(run: Run, tmp_path: Path) -> None:
    run("one")
    run("two", "seed=1")
    best = tmp_path / "one" / "checkpoints" / "best.ckpt"
    assert _trained(tmp_path / "one").model.gru.hidden_size == 8
    best.write_bytes((tmp_path / "two" / "checkpoints" / "best.ckpt").read_bytes())
    with pytest.raises(SystemExit, match=rf"{best} is of another run: delete {tmp_path / 'one'}"):
        _trained(tmp_path / "one")
    for content in (b"", best.read_bytes()[:500]):
        best.write_bytes(content)
        with pytest.raises(
            SystemExit, match=rf"best\.ckpt.*; delete {tmp_path / 'one'}, and the study trains it again"
        ):
            _trained(tmp_path / "one")
    best.unlink()
    with pytest.raises(SystemExit, match=r"best\.ckpt.*; delete"):
        _trained(tmp_path / "one")


def _runs(by_size: dict[int, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {SIZE: size, "seed": seed, "test/accuracy": value, LR: 0.1, "parameters": size, "tuned": ""}
            for size, values in by_size.items()
            for seed, value in enumerate(values)
        ]
    )


def test_differences_are_judged_by_their_interval_and_their_size() -> None:
    assert verdict(0.03, 0.02, 0.04, 0.01) == "better"
    assert verdict(-0.03, -0.04, -0.02, 0.01) == "worse"
    assert verdict(0.002, -0.001, 0.005, 0.2) == "the same"
    assert verdict(0.005, 0.004, 0.006, 0.001) == "the same"
    assert verdict(0.03, 0.02, 0.04, 0.2) == verdict(0.02, -0.01, 0.05, 0.01) == "open"
    runs = _runs({2: [0.5 + 0.001 * seed for seed in range(10)], 8: [0.99 + 0.0005 * seed for seed in range(10)]})
    pairs = [("8 against 2", {SIZE: 8}, {SIZE: 2}), ("2 against 2", {SIZE: 2}, {SIZE: 2})]
    found = differences(runs, pairs, 0.992)
    assert found["verdict"].tolist() == ["better", "the same"]
    assert found[["one", "other", "seeds"]].values.tolist() == [[6, 0, 10], [0, 0, 10]]
    assert found["p_solved"].tolist() == pytest.approx([2 * exact_test(6, 0, 10), 1])
    assert found[["mean", "low", "high"]].iloc[0].tolist() == pytest.approx(
        paired(runs["test/accuracy"][10:].reset_index(drop=True), runs["test/accuracy"][:10], 2)
    )
    table = compared(found, 0.992).table
    assert table["comparison"].tolist() == ["8 against 2", "2 against 2"]
    assert f"{found['mean'].iloc[0]:+.3f} (" in table["difference"].iloc[0]
    assert table["at 0.992 or more"].tolist() == ["6 and 0 of 10", "0 and 0 of 10"]
    assert results(runs, {SIZE: "units"}, 0.992, 2)["at 0.992 or more"].tolist() == [share(0, 10, 2), share(6, 10, 2)]
    # What was not tuned as it should be is open, and so is what learned nothing.
    for how in ("an edge", "none learned"):
        assert differences(runs.assign(tuned=how), pairs, 0.992)["verdict"].tolist() == ["open", "open"]


def test_intervals_and_corrections() -> None:
    generator = np.random.default_rng(0)
    one, other = (pd.Series(generator.standard_normal(8)) for _ in range(2))
    mean, low, high = paired(one, other)
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx(((one - other).mean(), interval.low, interval.high))
    assert paired(one, other, 10)[1] < low
    # Seeds that only one of them has are no pairs.
    with pytest.raises(AssertionError):
        paired(one, other[1:])
    # Holm 1979: the smallest times the number of all, the next times one less, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert share(10, 10) == "10 of 10 (0.69 to 1.00)"
    # Of a mean the jackknife is Student's interval.
    scores = generator.standard_normal((1, 12))
    student = stats.ttest_1samp(scores[0], 0).confidence_interval(0.95)
    assert jackknife(scores, lambda part: float(part.mean())) == pytest.approx((scores.mean(), *student))


@pytest.mark.parametrize("count", [6, 10, 20, 21])
def test_the_interval_of_a_median_covers_it(count: int) -> None:
    low, high = interval_of_median([float(number) for number in range(count)])
    # The median is below the first of them only if at most so many of the values are below the median.
    assert low + high == count - 1
    assert 2 * stats.binom.cdf(low, count, 0.5) <= 0.05 < 2 * stats.binom.cdf(low + 1, count, 0.5)
    assert interval_of_median([1.0] * (count - 1) + [math.inf])[0] == 1


def test_wins_that_other_seeds_reverse() -> None:
    # Three architectures; the second is ahead of the first with one of four seeds, and always behind the third.
    scores = np.array([[0.5, 0.5, 0.5, 0.5], [0.4, 0.4, 0.4, 0.6], [0.9, 0.9, 0.9, 0.9]])
    assert reversed_share(0, np.inf)(scores) == pytest.approx(1 / 12)
    assert reversed_share(0.05, 0.2)(scores) == pytest.approx(1 / 4)
    assert reversed_share(0.2, np.inf)(scores) == 0


@pytest.mark.parametrize("effect", [0.5, 1.0, 3.0])
def test_seeds_that_an_effect_takes(effect: float) -> None:
    count = seeds_for(effect)
    powers = [
        1 - stats.nct.cdf(stats.t.ppf(0.975, 2 * number - 2), 2 * number - 2, effect * math.sqrt(number / 2))
        for number in (count - 1, count)
        if number > 1
    ]
    assert powers[-1] >= 0.8 > min(*powers, 0.7)
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((2, 2000, count))
    drawn[1] += effect
    assert (stats.ttest_ind(*drawn, axis=1).pvalue < 0.05).mean() == pytest.approx(powers[-1], abs=0.04)


def test_the_growth_of_units_is_that_of_the_sizes_that_are_enough() -> None:
    # Sizes that are enough for the numbers of slots, of 10 seeds each.
    enough = dict(zip(COUNTS, (4, 8, 16, 32), strict=True))
    solved = np.array([[[size >= enough[slots]] * 10 for size in SIZES] for slots in COUNTS])
    expected = np.polyfit(np.log(COUNTS), np.log(list(enough.values())), 1)[0]
    assert exponent(solved) == pytest.approx(expected)
    # Half of the seeds are not most of them.
    half = solved.copy()
    half[:, :, 5:] = False
    assert exponent(half) == pytest.approx(0)
    for slots, size in itertools.product(range(len(COUNTS)), range(len(SIZES))):
        half[slots, size, 5] = solved[slots, size, 5]
    assert exponent(half) == pytest.approx(expected)

"""The leaderboard agrees with the jobs' folders, and its intervals have the stated coverage."""

import io
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from grulab.config.compose import compose
from grulab.config_error import ConfigError
from grulab.report.leaderboard import Leaderboard, effects, read_sweep
from grulab.report.statistics import bounds, difference, interval
from grulab.report.sweep_report import write_report
from grulab.report.verdict import Verdict
from grulab.run_folder.metrics_csv import COLUMNS
from grulab.sweep import manifest
from grulab.sweep.job import Job

Score = Callable[[int, bool, int], float]


def write_job(folder: Path, overrides: list[str], score: float | None, **summary: Any) -> None:
    """Add a job to sweep.json and write its folder as a run leaves it; without a score, the job never started."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    known = manifest.read(folder.parent) or manifest.new_manifest([], [], manifest.GRID)
    job = Job(len(known.jobs), folder.name, overrides, compose(overrides))
    manifest.write(folder.parent, replace(known, jobs=[*known.jobs, job]))
    if score is None:
        return
    config = job.config.to_dict()
    folder.mkdir()
    hidden_size = config["model"]["hidden_size"]
    content = {
        "status": "done", "config": config, "monitor": config["checkpoint"]["monitor"], "error": None,
        "metrics": {
            "val/accuracy": score, "val/loss": 1 - score, "test/accuracy": score - 0.01, "test/loss": 1.1 - score,
        },
        "parameters": 10 * hidden_size, "seconds": 2.0, "sequences_per_second": 500.0, "padding": 0.1,
        "chance": 1 / 3, "ceiling": 0.99, "best_epoch": 3, "epochs": 3,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(content | summary))
    fixed = {"train/loss": 1, "val/loss": 1, "lr": 0.02, "seconds": 0.1}
    rows = [
        {**dict.fromkeys(COLUMNS, 0.5), **fixed, "epoch": epoch, "step": epoch, "val/accuracy": score * epoch / 3}
        for epoch in (1, 2, 3)
    ]
    pd.DataFrame(rows)[list(COLUMNS)].to_csv(folder / "metrics.csv", index=False)


def write_sweep(folder: Path, score: Score, *common: str) -> Path:
    """Write a finished sweep over hidden size 8, 16, direction and seeds 0, 1, 2."""
    jobs = itertools.product((8, 16), (False, True), (0, 1, 2))
    for number, (hidden_size, bidirectional, seed) in enumerate(jobs):
        overrides = [f"model.hidden_size={hidden_size}", f"model.bidirectional={bidirectional}", f"seed={seed}"]
        job = folder / f"{number:03d}_job"
        write_job(job, [*common, *overrides], score(hidden_size, bidirectional, seed))
    return folder


def winner(board: Leaderboard) -> str:
    return Verdict(board).winner()


def plain(hidden_size: int, bidirectional: bool, seed: int) -> float:
    """Return a score with a large effect of hidden size, a small effect of direction, and an effect of the seed."""
    return 0.5 + 0.02 * hidden_size + 0.004 * bidirectional + 0.01 * seed


def test_the_ranking_is_what_the_jobs_are(tmp_path: Path) -> None:
    board = read_sweep(write_sweep(tmp_path, plain))
    assert board.swept == ["model.hidden_size", "model.bidirectional"]
    assert board.metric == "val/accuracy"
    assert len(board.ranking) == 4
    best = board.ranking.iloc[0]
    assert (best["rank"], best["model.hidden_size"], best["model.bidirectional"], best["seeds"]) == (1, 16, True, 3)
    scores = [plain(16, True, seed) for seed in range(3)]
    assert best["val/accuracy"] == pytest.approx(np.mean(scores))
    low, high = stats.t.interval(0.95, 2, loc=np.mean(scores), scale=stats.sem(scores))
    assert (best["val/accuracy low"], best["val/accuracy high"]) == pytest.approx((low, high))
    assert list(board.ranking["val/accuracy"]) == sorted(board.ranking["val/accuracy"], reverse=True)
    assert best["parameters"] == 160


def test_a_loss_is_better_when_it_is_lower(tmp_path: Path) -> None:
    board = read_sweep(write_sweep(tmp_path, plain, "checkpoint.monitor=val/loss"))
    assert board.metric == "val/loss"
    assert board.ranking.iloc[0]["model.hidden_size"] == 16
    assert list(board.ranking["val/loss"]) == sorted(board.ranking["val/loss"])


def test_the_first_is_compared_with_all_others(tmp_path: Path) -> None:
    board = read_sweep(write_sweep(tmp_path, lambda h, b, s: 0.5 + 0.1 * b + 0.005 * h + 0.001 * s))
    assert winner(board).startswith(
        "hidden_size 16, bidirectional true is ahead of hidden_size 8, bidirectional true by 0.0400 in val/accuracy"
    )
    assert "the difference is real. It is ahead of each of the 3 others in this way." in winner(board)
    assert Verdict(board).recommendation() == (
        "Use hidden_size 16, bidirectional true: 160 parameters; every smaller one is worse."
    )


def test_effects_are_paired_over_seeds(tmp_path: Path) -> None:
    """Seeds differ more than directions, but equally in both directions: pairing over seeds shows the difference."""
    wobble = {0: 1e-4, 1: -1e-4, 2: 0.0}
    board = read_sweep(write_sweep(tmp_path, lambda h, b, s: plain(h, b, s) + wobble[s] * b))
    first, second = (board.members(board.ranking.iloc[place]) for place in (0, 1))
    mean, half, pairs = difference(first, second, "val/accuracy", ["seed"])
    test = stats.ttest_rel(first["val/accuracy"].to_numpy(), second["val/accuracy"].to_numpy())
    ends = test.confidence_interval(0.95)
    assert pairs == 3
    assert (mean - half, mean + half) == pytest.approx((ends.low, ends.high))
    # Of so few seeds, and with such a spread over them, nobody knows which direction is better.
    assert "that may be chance" in winner(board)


def test_the_smallest_that_is_not_worse_is_recommended(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    board = read_sweep(write_sweep(tmp_path, lambda h, b, s: 0.8 + 0.001 * h + 0.01 * float(noise.normal())))
    text = Verdict(board).recommendation()
    assert text is not None
    assert text.startswith("Use hidden_size 8, bidirectional ")
    assert ": 80 parameters; " in text
    assert "buys at most 0.0" in text
    write_report(tmp_path)
    assert (tmp_path / "leaderboard.md").read_text().index("Use hidden_size 8") < 200
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table.loc[table["recommended"], "model.hidden_size"].tolist() == [8]


def test_what_would_tell_is_a_command(tmp_path: Path) -> None:
    noise = np.random.default_rng(3)
    board = read_sweep(write_sweep(tmp_path, lambda h, b, s: 0.8 + 0.005 * (h == 16) + 0.01 * float(noise.normal())))
    text = winner(board)
    assert "that may be chance. About " in text
    seeds = int(text.split("About ")[1].split()[0])
    assert seeds > 3
    assert f"seed='range({seeds})'" in text
    assert "hydra/sweeper=race" in text


def test_what_seeds_do_not_tell_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    for number, (size, seed) in enumerate(itertools.product((4, 8), (0, 1))):
        overrides = [f"model.hidden_size={size}", f"seed={seed}"]
        score = 0.8 + seed / 100
        write_job(folder / f"{number:03d}", overrides, score, sequences_by_length={"1-5": 400, "6-9": 600})
    flattered, sample = Verdict(read_sweep(folder)).caveats()
    assert "best of 2 configurations: both choices flatter it. The test accuracy" in flattered
    assert sample.startswith("1,000 test sequences leave a standard error of 0.013 in it")


def test_intervals_stay_within_what_is_possible() -> None:
    assert bounds(pd.Series([0.6, 0.687]), is_share=True) == (0.6, 0.687)
    low, high = bounds(pd.Series([0.99, 1.0, 0.97]), is_share=True)
    assert high == 1.0
    assert 0.9 < low < 0.97
    assert bounds(pd.Series([0.001, 0.1, 0.3]), is_share=False)[0] == 0


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    for number, size in enumerate((8, 16)):
        write_job(tmp_path / f"{number:03d}", [f"model.hidden_size={size}"], 0.9)
    assert winner(read_sweep(tmp_path)).startswith("hidden_size 8 is ahead of hidden_size 16")


def test_chance_is_called_chance(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    board = read_sweep(write_sweep(tmp_path, lambda h, b, s: 0.8 + 0.05 * float(noise.normal())))
    assert "that may be chance." in winner(board)


def test_one_seed_is_no_result(tmp_path: Path) -> None:
    for number, size in enumerate((8, 16)):
        write_job(tmp_path / f"{number}", [f"model.hidden_size={size}"], 0.5 + size / 100)
    board = read_sweep(tmp_path)
    assert list(board.ranking["val/accuracy low"]) == list(board.ranking["val/accuracy"])
    assert "with one seed each: more are needed" in winner(board)
    assert Verdict(board).recommendation() is None


def test_effects_are_over_pairs_that_agree_in_the_rest(tmp_path: Path) -> None:
    board = read_sweep(write_sweep(tmp_path, plain))
    sizes = effects(board, "model.hidden_size")
    assert list(sizes["value"]) == [8, 16]
    assert list(sizes["pairs"]) == [6, 6]
    assert list(sizes["difference"]) == pytest.approx([0, 0.16])
    assert list(sizes["difference_interval"]) == pytest.approx([0, 0], abs=1e-9)
    directions = effects(board, "model.bidirectional")
    assert list(directions["difference"]) == pytest.approx([0, 0.004])


def test_the_interval_of_the_mean_holds_its_level() -> None:
    """For about 95 % of many samples of three, the interval contains the true mean."""
    generator = np.random.default_rng(0)
    samples = generator.normal(0.8, 0.05, (2000, 3))
    held = [abs(sample.mean() - 0.8) <= interval(pd.Series(sample)) for sample in samples]
    assert 0.93 < np.mean(held) < 0.97


def test_half_a_sweep_is_reported_too(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, plain)
    error = {"type": "NonFiniteLossError", "message": "the loss is nan at step 7\nmore", "traceback": "..."}
    write_job(sweep / "012_failed", ["model.hidden_size=32"], 0.0, status="failed", error=error, metrics={})
    write_job(sweep / "013_killed", ["model.hidden_size=32", "seed=1"], 0.0, status="running", metrics={})
    write_job(sweep / "014_pending", ["model.hidden_size=32", "seed=2"], None)
    write_job(sweep / "015_garbled", ["model.hidden_size=32", "seed=3"], 0.0)
    (sweep / "015_garbled" / "summary.json").write_text("{")
    board = write_report(sweep)
    assert len(board.jobs) == 16
    assert len(board.ranking) == 4
    text = (sweep / "leaderboard.md").read_text()
    assert "16 jobs: 12 done, 2 failed, 1 interrupted, 1 pending" in text
    assert "| 012_failed | failed | NonFiniteLossError: the loss is nan at step 7 |" in text
    assert "| 015_garbled | failed | summary.json cannot be read |" in text


def test_a_sweep_without_a_result_says_so(tmp_path: Path) -> None:
    write_job(tmp_path / "000", ["seed=0"], None)
    write_report(tmp_path)
    assert "No job has a result yet" in (tmp_path / "leaderboard.md").read_text()
    assert not (tmp_path / "figures").exists()


def test_runs_in_one_folder_are_compared_too(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, plain)
    ranking = read_sweep(sweep).ranking
    (sweep / "sweep.json").unlink()
    pd.testing.assert_frame_equal(read_sweep(sweep).ranking, ranking)


def test_a_budget_of_parameters_is_compared_by_what_was_swept(tmp_path: Path) -> None:
    """The hidden size follows from budget, direction and depth, so it is no axis, and pairs may differ in it."""
    for number, (bidirectional, seed) in enumerate(itertools.product((False, True), (0, 1))):
        overrides = ["model.parameter_budget=5000", f"model.bidirectional={bidirectional}", f"seed={seed}"]
        write_job(tmp_path / f"{number:03d}", overrides, 0.9 + 0.01 * bidirectional + 0.001 * seed)
    board = read_sweep(tmp_path)
    assert (board.swept, board.tied) == (["model.bidirectional"], ["model.hidden_size"])
    assert effects(board, "model.bidirectional")["difference"][1] == pytest.approx(0.01)
    write_report(tmp_path)
    assert "| rank | bidirectional | hidden_size | val/accuracy" in (tmp_path / "leaderboard.md").read_text()


def test_keys_that_change_together_are_one_axis(tmp_path: Path) -> None:
    """Keys that always change together (zipped, or with the task) are one axis, and jobs still form pairs."""
    tasks = (["data=sinusoids", "model.num_layers=1"], ["data=temporal_order", "model.num_layers=2"])
    for number, (task, patience, seed) in enumerate(itertools.product(tasks, ("null", "3"), (0, 1))):
        overrides = [*task, f"trainer.early_stopping_patience={patience}", f"seed={seed}", f"data.seed={seed}"]
        write_job(tmp_path / f"{number:03d}", overrides, 0.5 + 0.1 * number)
    board = read_sweep(tmp_path)
    assert board.swept == ["data.task", "trainer.early_stopping_patience"]
    assert "model.num_layers" in board.tied
    assert "data.seed" not in board.tied
    assert list(board.ranking["seeds"]) == [2, 2, 2, 2]
    assert effects(board, "data.task")["difference"][1] == pytest.approx(0.4)
    write_report(tmp_path)
    assert "early_stopping_patience null" in (tmp_path / "leaderboard.md").read_text()


def test_a_key_that_goes_with_the_seed_is_an_axis(tmp_path: Path) -> None:
    for number, (size, seed) in enumerate(((4, 0), (16, 1))):
        write_job(tmp_path / f"{number:03d}", [f"model.hidden_size={size}", f"seed={seed}"], 0.5 + 0.1 * number)
    board = read_sweep(tmp_path)
    assert board.swept == ["model.hidden_size"]
    assert list(board.ranking["seeds"]) == [1, 1]


def test_a_seed_of_the_data_is_not_taken_for_that_of_the_run(tmp_path: Path) -> None:
    for number, seed in enumerate((0, 1)):
        write_job(tmp_path / f"{number:03d}", [f"data.seed={seed}"], 0.5 + 0.1 * number)
    board = read_sweep(tmp_path)
    assert board.swept == []
    assert board.ranking["val/accuracy"].tolist() == [pytest.approx(0.55)]
    assert board.ranking["seeds"].tolist() == [2]
    write_report(tmp_path)
    assert "| data seeds |" in (tmp_path / "leaderboard.md").read_text()


def test_results_are_paired_by_their_data_and_not_by_their_weights(tmp_path: Path) -> None:
    """The data of a seed are hard or easy for every configuration; the weights of a seed mean nothing in another."""
    luck = {0: 0.0, 1: 0.1, 2: -0.1, 3: 0.05}
    for number, (size, data_seed, seed) in enumerate(itertools.product((4, 16), luck, (0, 1, 2))):
        score = 0.5 + 0.02 * (size == 16) + luck[data_seed] + 0.003 * ((seed * size + data_seed) % 3 - 1)
        overrides = [f"model.hidden_size={size}", f"data.seed={data_seed}", f"seed={seed}"]
        write_job(tmp_path / f"{number:03d}", overrides, score, sequences_by_length={"5-10": 1000})
    board = read_sweep(tmp_path)
    assert (board.swept, board.repeat) == (["model.hidden_size"], "data.seed")
    assert board.ranking["seeds"].tolist() == [4, 4]
    table = effects(board, "model.hidden_size")
    assert table["pairs"][1] == 4
    means = board.done.groupby(["model.hidden_size", "data.seed"])["val/accuracy"].mean()
    gains = means[16] - means[4]
    assert table["difference"][1] == pytest.approx(gains.mean())
    assert table["difference_interval"][1] == pytest.approx(3.182446 * gains.std() / 2, rel=1e-5)
    low, high = bounds(means[16], is_share=True)
    assert board.ranking["val/accuracy low"][0] == pytest.approx(low)
    assert board.ranking["val/accuracy high"][0] == pytest.approx(high)
    write_report(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "Jobs with the same data share the luck of their test sequences" in text
    assert "test sequences leave a standard error" not in text
    assert "data.seed='range(" in text


def test_a_sweep_under_way_is_ranked_as_it_is_compared(tmp_path: Path) -> None:
    """Of two data seeds the hard one has more results so far: means over jobs would tell another winner."""
    number = 0
    for size, data_seed, seeds in ((4, 0, 3), (4, 1, 1), (16, 0, 1), (16, 1, 3), (4, 2, 2), (16, 2, 2)):
        for seed in range(3):
            score = 0.9 - 0.3 * data_seed + 0.01 * (size == 16) if seed < seeds else None
            overrides = [f"model.hidden_size={size}", f"data.seed={data_seed}", f"seed={seed}"]
            write_job(tmp_path / f"{number:03d}", overrides, score)
            number += 1
    board = read_sweep(tmp_path)
    assert board.ranking["model.hidden_size"].tolist() == [16, 4]
    assert board.ranking["val/accuracy"].tolist() == pytest.approx([0.61, 0.60])
    assert len(board.tables(board.ranking.iloc[0])) == 3


def test_a_data_seed_that_goes_with_a_configuration_is_none_of_several(tmp_path: Path) -> None:
    jobs = itertools.product(((8, 0), (16, 1)), (0, 1, 2))
    for number, ((size, data_seed), seed) in enumerate(jobs):
        overrides = [f"model.hidden_size={size}", f"data.seed={data_seed}", f"seed={seed}"]
        write_job(tmp_path / f"{number:03d}", overrides, 0.5 + 0.01 * size + 0.001 * seed)
    board = read_sweep(tmp_path)
    assert board.repeat == "seed"
    assert board.ranking["seeds"].tolist() == [3, 3]


def test_other_splits_of_a_file_are_no_other_data(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("id,time,x,label\n" + "".join(f"{one},0,{one},{one % 2}\n" for one in range(40)))
    for number, seed in enumerate((0, 1, 2)):
        overrides = ["data=files", f"data.path={file}", f"data.seed={seed}"]
        write_job(tmp_path / "sweep" / f"{number:03d}", overrides, 0.5)
    board = read_sweep(tmp_path / "sweep")
    assert (board.repeat, board.swept) == ("seed", ["data.seed"])


def test_seeds_side_by_side_grow_side_by_side(tmp_path: Path) -> None:
    for number, (size, seed) in enumerate(itertools.product((4, 16), (1, 2, 3, 4))):
        overrides = [f"model.hidden_size={size}", f"data.seed={seed - 1}", f"seed={seed}"]
        score = 0.5 + 0.01 * (size == 16) + 0.02 * ((seed * size) % 5)
        write_job(tmp_path / f"{number:03d}", overrides, score)
    told = Verdict(read_sweep(tmp_path)).winner()
    count = int(told.partition("About ")[2].split()[0])
    values = ",".join(map(str, [1, 2, 3, 4, 0, *range(5, count)]))
    assert f"data.seed='range({count})' seed={values}" in told


def test_what_is_no_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing: no such folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(ConfigError, match="is not a sweep's folder"):
        write_report(tmp_path)


def test_the_report_is_whole(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, plain, "name=mine")
    write_report(sweep)
    names = {path.name for path in sweep.iterdir() if not path.name.endswith("_job")}
    assert names == {"sweep.json", "leaderboard.csv", "leaderboard.md", "report.html", "figures", "means"}
    pictures = sorted((sweep / "figures").iterdir())
    assert [path.name for path in pictures] == ["effects.png", "learning.png", "pareto.png"]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.width >= 400
            assert np.asarray(picture.convert("L")).std() > 10
    page = (sweep / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', page), "it needs nothing beside it"
    table = pd.read_csv(sweep / "leaderboard.csv")
    assert list(table["rank"]) == [1, 2, 3, 4]
    text = (sweep / "leaderboard.md").read_text()
    assert "grulab train name=mine model.hidden_size=16 model.bidirectional=True seed=2" in text
    assert "011_job/checkpoints/best.ckpt" in text
    # A second report is the same, byte for byte.
    before = {path.name: path.read_bytes() for path in sweep.glob("*.*")}
    write_report(sweep)
    assert {path.name: path.read_bytes() for path in sweep.glob("*.*")} == before


def test_the_keys_of_several_tasks_have_no_effect_of_their_own(tmp_path: Path) -> None:
    for number, task in enumerate(("sinusoids", "temporal_order", "hidden_markov")):
        for seed in (0, 1):
            folder = tmp_path / f"{2 * number + seed:03d}"
            write_job(folder, [f"data={task}", f"seed={seed}", "model.hidden_size=8"], 0.5 + 0.1 * number)
            summary = json.loads((folder / "summary.json").read_text())
            (folder / "summary.json").write_text(json.dumps(summary | {"chance": 1 / (3 + number)}))
    board = read_sweep(tmp_path)
    assert board.swept == ["data.task"]
    assert "data.train_size" in board.tied
    write_report(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "the jobs have different tasks, with chance levels and ceilings of their own" in text


@pytest.mark.parametrize(("seeds", "words"), [(2, "that may be chance"), (6, "the difference is real")])
def test_the_same_difference_in_few_seeds_may_be_chance(tmp_path: Path, seeds: int, words: str) -> None:
    for number, (size, seed) in enumerate(itertools.product((4, 8), range(seeds))):
        write_job(tmp_path / f"{number:03d}", [f"model.hidden_size={size}", f"seed={seed}"], 0.5 + size / 16)
    assert words in winner(read_sweep(tmp_path))


def test_equal_scores_are_no_lead(tmp_path: Path) -> None:
    for number, (size, seed) in enumerate(itertools.product((4, 8), (0, 1))):
        write_job(tmp_path / f"{number:03d}", [f"model.hidden_size={size}", f"seed={seed}"], 1.0)
    assert winner(read_sweep(tmp_path)) == "hidden_size 4 and hidden_size 8 are equal, over 2 and 2 seeds."


def test_a_configuration_without_all_its_seeds_is_behind(tmp_path: Path) -> None:
    """Those that failed may be the bad ones."""
    scores = {(4, 0): 0.8, (4, 1): 0.81, (4, 2): 0.8, (8, 0): 0.9, (8, 1): None, (8, 2): None}
    for number, ((size, seed), score) in enumerate(scores.items()):
        write_job(tmp_path / f"{number:03d}", [f"model.hidden_size={size}", f"seed={seed}"], score)
    board = read_sweep(tmp_path)
    assert list(board.ranking["model.hidden_size"]) == [4, 8]
    assert winner(board) == "There is nothing to compare: one configuration has results."
    # Nobody knows yet which to use.
    assert Verdict(board).recommendation() is None
    write_report(tmp_path)
    assert f"grulab resume {tmp_path}" in (tmp_path / "leaderboard.md").read_text()


def test_a_recommendation_and_a_verdict_do_not_contradict_each_other(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for case in range(30):
        folder = tmp_path / str(case)
        for number, (size, seed) in enumerate(itertools.product((4, 8), range(3))):
            score = 0.8 + size / 100 + 0.02 * float(generator.normal())
            write_job(folder / f"{number:03d}", [f"model.hidden_size={size}", f"seed={seed}"], score)
        verdict = Verdict(read_sweep(folder))
        text = verdict.recommendation()
        assert text is not None
        assert ("every smaller one is worse" in text) <= ("the difference is real" in verdict.winner())
        if "buys at most" in text:
            assert "may be chance" in verdict.winner()


def test_results_that_are_looked_at_again_need_more(tmp_path: Path) -> None:
    scores = {4: [0.80, 0.81, 0.82, 0.80], 8: [0.82, 0.83, 0.84, 0.82]}
    for number, (size, seed) in enumerate(itertools.product((4, 8), range(4))):
        write_job(tmp_path / f"{number:03d}", [f"model.hidden_size={size}", f"seed={seed}"], scores[size][seed])
    assert "the difference is real" in winner(read_sweep(tmp_path))
    known = manifest.read(tmp_path)
    assert known is not None
    added: list[manifest.Addition] = [{"created": "", "arguments": [], "jobs": 2}] * 3
    manifest.write(tmp_path, replace(known, added=added))
    assert "may be chance" in winner(read_sweep(tmp_path))


def test_a_race_is_told_without_those_that_did_not_finish(tmp_path: Path) -> None:
    scores = {4: [0.4, 0.41, 0.4], 8: [0.6, 0.61, None], 16: [0.9, 0.91, 0.9]}
    for number, (size, seed) in enumerate(itertools.product((4, 8, 16), range(3))):
        write_job(
            tmp_path / f"{number:03d}", [f"model.hidden_size={size}", f"seed={seed}"], scores[size][seed],
        )  # fmt: skip
    known = manifest.read(tmp_path)
    assert known is not None
    design: manifest.Design = {**manifest.GRID, "kind": "race", "indifference": 0.005}
    manifest.write(tmp_path, replace(known, design=design))
    text = winner(read_sweep(tmp_path))
    assert text.startswith("hidden_size 16 is better than all 1 that it raced against")
    assert "1 that did not get to the end are not compared." in text


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_report_fits_a_terminal_of_any_width(columns: int, tmp_path: Path) -> None:
    """With one seed there is no column that says how often each is first."""
    write_sweep(tmp_path / "three", plain)
    for number, hidden_size in enumerate((8, 16)):
        job = tmp_path / "one" / f"{number:03d}_job"
        write_job(job, [f"model.hidden_size={hidden_size}", "seed=0"], plain(hidden_size, False, 0))
    for name in ("three", "one"):
        shown = io.StringIO()
        write_report(tmp_path / name, Console(width=columns, file=shown, force_terminal=True))
        assert "rank" in shown.getvalue()

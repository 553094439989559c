"""Sweeps that grow, choose, halve and race: what is there stays, and a kill changes nothing."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest
from experiments.exact_resume.harness import differences
from experiments.sweeps.harness import done_jobs, kill_until_done, leaderboard

from grulab.config.compose import compose
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.sweep.job import Job
from grulab.sweep.rungs import at_first_rung, configurations, note_on_agreement, notes_on_rungs, promoted
from grulab.training.run import train
from tests.conftest import SMALL, forked

OF_ANY_LENGTH = [line for line in SMALL if "max_epochs" not in line]
EIGHT = ["model.hidden_size=2,4,6,8", "seed=0,1"]


def run(folder: Path, *arguments: str) -> str:
    process = forked(folder, *arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout


def refused(folder: Path, *arguments: str) -> str:
    before = set(folder.rglob("*"))
    process = forked(folder, *arguments)
    assert process.returncode == 2, process.stdout
    assert set(folder.rglob("*")) == before
    return process.stderr


def test_a_sweep_grows(tmp_path: Path) -> None:
    run(tmp_path, "train", "-m", *SMALL, "model.hidden_size=4,8", "seed=0,1", "hydra.sweep.dir=sweep")
    before = done_jobs(tmp_path / "sweep")
    plan = run(tmp_path, "resume", "sweep", "seed=range(3)", "--plan")
    assert "6 jobs: 4 done, 2 new" in plan
    output = run(tmp_path, "resume", "sweep", "seed=range(3)", "model.hidden_size=2,4,8")
    assert "9 jobs: 4 done before, 5 to do" in output
    # A number and a folder stay with their job.
    after = done_jobs(tmp_path / "sweep")
    assert {name: after[name] for name in before} == before
    assert len(after) == 9
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    assert [job.number for job in known.jobs] == list(range(9))
    assert [addition["jobs"] for addition in known.added] == [5]
    assert "seed=range(3)" in " ".join(known.added[0]["arguments"])
    # What was asked for once need not be said again.
    assert "9 jobs: 9 done" in run(tmp_path, "resume", "sweep")
    # The same sweep, made at once, has the same results.
    run(tmp_path, "train", "-m", *SMALL, "model.hidden_size=2,4,8", "seed=0,1,2", "hydra.sweep.dir=whole")
    assert results(tmp_path / "sweep") == results(tmp_path / "whole")
    message = refused(tmp_path, "resume", "sweep", "seed=0,1")
    assert message == (
        "grulab: the sweep in sweep has 9 jobs, and this command leaves out 3 of them, the first is "
        f"{known.jobs[[job.config.seed for job in known.jobs].index(2)].folder}; a sweep grows and does not shrink: "
        "name them too: seed=0,1,2, or begin another sweep with grulab train -m\n"
    )
    assert "needs hydra/sweeper=grid" in refused(tmp_path, "resume", "sweep", "hydra/sweeper=basic")


def results(sweep: Path) -> dict[str, dict[str, float]]:
    """Return the metrics of each run, by what the run is."""
    found = {}
    for path in sweep.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        found[summary["config_hash"]] = summary["metrics"]
    return found


def test_a_key_is_tuned_for_each_configuration(tmp_path: Path) -> None:
    output = run(
        tmp_path, "train", "-m", *SMALL, "model.hidden_size=4,8", "optimizer.lr=1e-5,0.02", "seed=0,1",
        "hydra.sweeper.tune=[optimizer.lr]", "trainer.max_epochs=6", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv")
    assert len(board) == 2
    jobs = [json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/summary.json")]
    for _, row in board.iterrows():
        means = {
            rate: sum(scores) / 2
            for rate in (1e-5, 0.02)
            if (
                scores := [
                    job["metrics"]["val/accuracy"]
                    for job in jobs
                    if job["config"]["model"]["hidden_size"] == row["model.hidden_size"]
                    and job["config"]["optimizer"]["lr"] == rate
                ]
            )
        }
        assert row["optimizer.lr"] == max(means, key=lambda rate: means[rate])
        assert row["val/accuracy"] == pytest.approx(max(means.values()))
    assert "largest optimizer.lr tried" in output or "smallest optimizer.lr tried" in output
    assert "What model.hidden_size does on its own" in output
    assert "What optimizer.lr does on its own" not in output


def scored(jobs: list[Job], score: dict[tuple[int, int], float]) -> list[Job] | None:
    def score_at(job: Job, epochs: int) -> float | None:
        return score.get((job.number, epochs)) if job.config.trainer.max_epochs >= epochs else None

    return promoted(jobs, score_at, [1, 2, 4], 0.5, ["optimizer.lr"])


def make_jobs(rates: tuple[float, ...] = (0.01, 0.1)) -> list[Job]:
    """Return jobs of four sizes, two rates and two seeds, at the first rung."""
    jobs = []
    for rate in rates:
        for size in (2, 4, 6, 8):
            for seed in (0, 1):
                overrides = [f"model.hidden_size={size}", f"optimizer.lr={rate}", f"seed={seed}"]
                config = at_first_rung(compose(overrides), [1, 2, 4])
                jobs.append(Job(len(jobs), f"job{len(jobs)}", overrides, config))
    return jobs


def test_the_best_of_each_tuned_value_go_on_with_all_their_seeds() -> None:
    jobs = make_jobs()
    # The second rate is better in every job.
    score = {(job.number, 1): job.config.model.hidden_size / 10 + job.config.optimizer.lr for job in jobs}
    after = scored(jobs, score)
    assert after is not None
    gone_on = [job for job in after if job.config.trainer.max_epochs == 2]
    assert {(job.config.model.hidden_size, job.config.optimizer.lr) for job in gone_on} == {
        (size, rate) for size in (6, 8) for rate in (0.01, 0.1)
    }
    assert len(gone_on) == 8
    # Until those have results, nothing more follows.
    assert scored(after, score) is None
    score |= {(job.number, 2): -job.config.model.hidden_size for job in gone_on}
    last = scored(after, score)
    assert last is not None
    finalists = [job for job in last if job.config.trainer.max_epochs == 4]
    assert {job.config.model.hidden_size for job in finalists} == {6}
    assert scored(last, score | {(job.number, 4): 1.0 for job in finalists}) is None


def test_a_configuration_with_a_failed_seed_stays() -> None:
    jobs = make_jobs((0.01,))
    score = {(job.number, 1): job.config.model.hidden_size / 10 for job in jobs if job.number != 7}
    after = scored(jobs, score)
    assert after is not None
    assert {job.config.model.hidden_size for job in after if job.config.trainer.max_epochs == 2} == {4, 6}
    # When it has succeeded, it follows, and what has gone on is not taken back.
    late = scored(after, score | {(7, 1): 0.8} | {(job.number, 2): 0.1 for job in after})
    assert late is not None
    assert {job.config.model.hidden_size for job in late if job.config.trainer.max_epochs >= 2} == {4, 6, 8}


def test_ranks_that_hardly_agree_are_noted() -> None:
    assert notes_on_rungs([3, 9, 18], 0.33) == []
    assert "1 epochs are under a sixth of the last rung" in notes_on_rungs([1, 3, 9], 0.33)[0]
    assert "keep=0.5 has no effect without hydra.sweeper.rungs" in notes_on_rungs(None, 0.5)[0]
    jobs = make_jobs((0.01,))
    later = [
        Job(job.number, job.folder, job.overrides, compose([*job.overrides, "trainer.max_epochs=4"])) for job in jobs
    ]

    def score_at(job: Job, epochs: int) -> float:
        return job.config.model.hidden_size * (1 if epochs == 1 else -1)

    assert "hardly agree (correlation -1.00 over 4 configurations)" in note_on_agreement(later, score_at, 1, 4)[0]
    assert note_on_agreement(later, lambda job, _: job.config.model.hidden_size, 1, 4) == []


def test_a_run_that_was_promoted_twice_was_never_stopped(tmp_path: Path) -> None:
    arguments = [
        *OF_ANY_LENGTH,
        *EIGHT,
        "optimizer.schedule=cosine",
        "hydra.sweeper.rungs=[1,2,5]",
        "hydra.sweeper.keep=0.5",
    ]
    output = run(tmp_path, "train", "-m", *arguments, "hydra.sweep.dir=sweep")
    assert "rung    1 epochs: 2 of 4 configurations go on to 2" in output
    assert "rung    2 epochs: 1 of 2 configurations go on to 5" in output
    assert "2 stopped at rung 1 (1 epochs), 1 stopped at rung 2 (2 epochs), 1 trained to the end (5 epochs)" in (
        " ".join(output.split())
    )
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    (members,) = [
        group
        for group in configurations(known.jobs, is_of_rungs=True).values()
        if group[0].config.trainer.max_epochs == 5
    ]
    for job in members:
        alone = [*SMALL, *job.overrides, "trainer.max_epochs=5", "optimizer.horizon=5"]
        train(compose(alone), tmp_path / f"alone-{job.number}")
        assert differences(tmp_path / f"alone-{job.number}", tmp_path / "sweep" / job.folder) == []
    # One that was stopped goes on by hand.
    stopped = next(job for job in known.jobs if job.config.trainer.max_epochs == 1)
    run(tmp_path, "resume", f"sweep/{stopped.folder}", "trainer.max_epochs=5")
    again = run(tmp_path, "resume", "sweep")
    assert "8 jobs: 8 done" in again


def test_a_configuration_that_diverges_drops_out(tmp_path: Path) -> None:
    process = forked(
        tmp_path, "train", "-m", *OF_ANY_LENGTH, "optimizer.lr=2e37,0.01,0.02", "seed=0,1", "hydra.sweep.dir=sweep",
        "hydra.sweeper.rungs=[1,2]", "hydra.sweeper.keep=0.3", "data.train_size=320",
    )  # fmt: skip
    assert process.returncode == 1
    assert "rung    1 epochs: 1 of 3 configurations go on to 2" in process.stdout
    assert "failed  000_lr-2e37_seed-0  NonFiniteLossError" in process.stdout


@pytest.mark.parametrize(
    "design",
    [
        ["hydra.sweeper.rungs=[1,2,4]", "hydra.sweeper.keep=0.5"],
        ["hydra/sweeper=race", "hydra.sweeper.max_jobs=16", "hydra.sweeper.indifference=0"],
    ],
)
def test_kills_change_no_design(tmp_path: Path, design: list[str]) -> None:
    arguments = [*OF_ANY_LENGTH, *EIGHT, *design]
    if "race" in design[0]:
        arguments = [line for line in arguments if not line.startswith("seed=")] + ["trainer.max_epochs=2"]
    run(tmp_path, "train", "-m", *arguments, "hydra.sweep.dir=alone")
    kill_until_done(arguments, tmp_path / "killed", 4, seconds=1.5, generator=random.Random(1))
    assert leaderboard(tmp_path / "killed") == leaderboard(tmp_path / "alone")


def test_a_race_adds_seeds_where_they_are_needed(tmp_path: Path) -> None:
    arguments = [*SMALL, "model.hidden_size=2,8,9", "trainer.max_epochs=6", "hydra/sweeper=race"]
    output = run(
        tmp_path, "train", "-m", *arguments, "hydra.sweeper.max_jobs=14", "hydra.sweeper.indifference=0",
        "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert "9 jobs: 9 to do" in output
    assert "configurations are left" in output
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    assert len(known.jobs) <= 14
    assert len({job.folder for job in known.jobs}) == len(known.jobs)
    run(tmp_path, "resume", "sweep")
    assert manifest.read(tmp_path / "sweep") == known
    # What is changed is changed for the seeds that were added too.
    run(tmp_path, "resume", "sweep", "trainer.max_epochs=7")
    longer = manifest.read(tmp_path / "sweep")
    assert longer is not None
    assert {job.config.trainer.max_epochs for job in longer.jobs} == {7}


def test_lengths_are_an_axis_too(tmp_path: Path) -> None:
    """Keys that may change at a resume make different jobs when they are swept."""
    run(tmp_path, "train", "-m", *OF_ANY_LENGTH, "trainer.max_epochs=1,2", "seed=0,1", "hydra.sweep.dir=sweep")
    before = done_jobs(tmp_path / "sweep")
    assert "4 jobs: 4 done" in run(tmp_path, "resume", "sweep")
    assert done_jobs(tmp_path / "sweep") == before
    board = pd.read_csv(tmp_path / "sweep" / "leaderboard.csv")
    assert sorted(board["trainer.max_epochs"]) == [1, 2]
    assert board["val/accuracy"].is_monotonic_decreasing
    assert "6 jobs: 4 done before, 2 to do" in run(tmp_path, "resume", "sweep", "seed=0,1,2")


def test_what_the_command_changed_is_named_alone(tmp_path: Path) -> None:
    run(tmp_path, "train", "-m", *SMALL, "model.hidden_size=4,8", "seed=0,1", "hydra.sweep.dir=sweep")
    run(tmp_path, "resume", "sweep", "seed=0,1,2")
    message = refused(tmp_path, "resume", "sweep", "data.noise=0.3")
    assert message.splitlines() == [
        "grulab: data.noise=0.3: the sweep in sweep has 0.5 (in every job); put it back, or begin another sweep with "
        "grulab train -m"
    ]
    assert "is no search, and stays what it is" in refused(tmp_path, "resume", "sweep", "hydra/sweeper=optuna")


def test_other_launchers_are_refused_where_they_would_look_elsewhere(tmp_path: Path) -> None:
    run(tmp_path, "train", "-m", *SMALL, "model.hidden_size=4,8", "hydra.sweep.dir=sweep")
    run(tmp_path, "resume", "sweep", "seed=0,1")
    assert "is in 000_hidden_size-4, where only" in refused(tmp_path, "resume", "sweep", "hydra/launcher=basic")


def test_a_plan_tells_what_follows(tmp_path: Path) -> None:
    words = ["train", "-m", *OF_ANY_LENGTH, "model.hidden_size=4,8", "--plan"]
    rungs = run(tmp_path, *words, "seed=0,1", "hydra.sweeper.rungs=[1,3]")
    expected = "All train to the first of the rungs 1, 3, which replace trainer.max_epochs; from each, 33% go on"
    assert expected in " ".join(rungs.split())
    race = run(tmp_path, *words, "hydra/sweeper=race")
    assert "Further seeds follow in rounds, up to hydra.sweeper.max_jobs=200 jobs." in race
    search = run(tmp_path, *words, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4")
    assert "4 trials of 3 seeds, and 5 fresh seeds of the best: at most 17 jobs." in search


def test_a_grid_goes_on_as_a_race(tmp_path: Path) -> None:
    run(tmp_path, "train", "-m", *SMALL, "model.hidden_size=2,4", "seed=0,1,2", "hydra.sweep.dir=sweep")
    output = run(
        tmp_path, "resume", "sweep", "hydra/sweeper=race", "hydra.sweeper.max_jobs=10", "hydra.sweeper.indifference=0"
    )
    assert "8 jobs: 6 done before, 2 to do" in output
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    assert known.design["kind"] == "race"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["hydra.sweeper.rungs=[3,2]"],
            "hydra.sweeper.rungs=[3, 2]: must rise from one number of epochs to the next",
        ),
        (["hydra.sweeper.rungs=[3]"], "hydra.sweeper.rungs=[3]: needs at least 2 values"),
        (
            ["hydra.sweeper.rungs=[1,3]", "trainer.max_epochs=5"],
            "trainer.max_epochs=5: the last of hydra.sweeper.rungs is",
        ),
        (["hydra.sweeper.keep=0"], "hydra.sweeper.keep=0: must be over 0"),
        (["hydra.sweeper.keep=1"], "hydra.sweeper.keep=1: must be under 1"),
        (["hydra.sweeper.tune=[optimizer.lr]"], "hydra.sweeper.tune=[optimizer.lr]: is not swept; give it several"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.tune=[lr]"], "[lr]: is not swept; did you mean optimizer.lr?"),
        (["optimizer.lr=0.1,0.2", "hydra.sweeper.tune=[optimiser.lr]"], "is not swept; did you mean optimizer.lr?"),
        (["hydra.sweeper.tune=[seed]"], "hydra.sweeper.tune=[seed]: seeds are not chosen"),
        (["hydra.sweeper.tune=[data.seed]"], "hydra.sweeper.tune=[data.seed]: seeds are not chosen"),
        (
            ["data.seed=0,1", "hydra.sweeper.rungs=[1,2]"],
            "data.seed=0,1: hydra.sweeper.rungs would choose",
        ),
        (["data.seed=0,1", "hydra/sweeper=race"], "data.seed=0,1: hydra/sweeper=race would choose the easiest data"),
        (
            ["hydra/sweeper=race", "hydra.sweeper.indifference=-1"],
            "hydra.sweeper.indifference=-1: must be at least 0",
        ),
        (["hydra/sweeper=race", "model.hidden_size=8"], "there is one configuration, and a race needs two"),
        (["hydra/sweeper=race", "seed=3"], "seed=3: a race compares seeds; leave it out"),
        (["hydra.sweeper.indifference=0.1"], "hydra.sweeper.indifference"),
        (["optimizer.lr=interval(0.01,0.1)"], "is a range without steps"),
    ],
)
def test_odd_designs_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    seeds = [] if any(line.startswith(("hydra/sweeper=race", "seed")) for line in arguments) else ["seed=0,1"]
    sizes = [] if any("hidden_size" in line for line in arguments) else ["model.hidden_size=4,8"]
    told = refused(tmp_path, "train", "-m", *OF_ANY_LENGTH, *sizes, *seeds, *arguments)
    assert message in told
    assert told.count("\n") == 1


def test_a_job_that_is_done_says_how_it_was_computed(tmp_path: Path) -> None:
    run(tmp_path, "train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    run(tmp_path, "resume", "sweep", "model.sequences=padded")
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    assert {job.config.model.sequences for job in known.jobs} == {"auto"}
    assert "leaves out 2 of them" in refused(tmp_path, "resume", "sweep", "model.sequences=packed,padded")
    told = run(tmp_path, "resume", str(tmp_path / "sweep" / known.jobs[0].folder), "model.sequences=padded")
    assert "the overrides have no effect: the run is done" in told
    summary = read_summary(tmp_path / "sweep" / known.jobs[0].folder)
    assert summary is not None
    assert summary["config"]["model"]["sequences"] == "auto"


def test_a_sweep_over_a_key_that_may_change_trains_for_longer(tmp_path: Path) -> None:
    run(tmp_path, "train", "-m", *SMALL, "model.sequences=packed,padded", "hydra.sweep.dir=sweep")
    run(tmp_path, "resume", "sweep", "trainer.max_epochs=9")
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    assert [job.config.model.sequences for job in known.jobs] == ["packed", "padded"]
    assert {job.config.trainer.max_epochs for job in known.jobs} == {9}


def test_a_sweep_prints_the_notes_of_its_jobs_once(tmp_path: Path) -> None:
    words = ["trainer.tf32=true", "model.dropout=0,0.5", "seed=0,1", "trainer.accelerator=cpu"]
    told = run(tmp_path, "train", "-m", *SMALL, *words, "hydra.sweep.dir=sweep")
    assert told.count("trainer.tf32=true has no effect with the cpu device") == 1
    assert (
        "model.dropout=0.5 has no effect with model.num_layers=1: dropout acts between layers (in 2 of 4 jobs)"
        in told
    )

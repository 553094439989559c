"""Expansion of a sweep into jobs, and the sweeps that are refused before they start."""

from pathlib import Path

import pytest

from grulab.config.compose import compose
from grulab.config.parameter_budget import parameter_count
from grulab.config_error import ConfigError
from grulab.sweep.compose_jobs import compose_sweep
from grulab.sweep.expand import expand
from grulab.tasks.registry import build_task
from grulab.training.build import build_module
from tests.conftest import forked


def test_keys_side_by_side() -> None:
    arguments = ["model.hidden_size=8,16,32", "model.num_layers=3,2,1", "seed=0,1", "optimizer.lr=0.1"]
    zipped = ["model.hidden_size", "model.num_layers"]
    jobs = expand(arguments, [zipped], 10_000)
    assert len(jobs) == 6
    assert jobs[2] == ["model.hidden_size=16", "model.num_layers=2", "seed=0", "optimizer.lr=0.1"]
    assert len(expand(arguments, None, 10_000)) == 18
    assert len(expand(["seed=0,1", "data.seed=0,1", *arguments[:2]], [["seed", "data.seed"], zipped], 10_000)) == 6
    with pytest.raises(ConfigError, match=r"zip=\[seed,model.num_layers\]: side by side.*seed 2, model.num_layers 3"):
        expand(arguments, [["seed", "model.num_layers"]], 10_000)
    with pytest.raises(ConfigError, match=r"optimizer.lr is not swept"):
        expand(arguments, [["seed", "optimizer.lr"]], 10_000)
    with pytest.raises(ConfigError, match=r"goes side by side with others already"):
        expand(arguments, [zipped, ["model.num_layers", "model.hidden_size"]], 10_000)
    sweep = compose_sweep(
        ["model.hidden_size=8,16", "model.num_layers=2,1", "hydra.sweeper.zip=[model.hidden_size,model.num_layers]"]
    )
    assert [(job.config.model.hidden_size, job.config.model.num_layers) for job in sweep.jobs] == [(8, 2), (16, 1)]


def test_jobs_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    process = forked(tmp_path, "train", "-m", "seed=0,1", "hydra.sweep.subdir=same")
    assert process.returncode == 2
    assert "hydra.sweep.subdir=same: jobs 0 and 1 would share the folder same" in process.stderr
    own = compose_sweep(["seed=0,1", "hydra.sweep.subdir=mine-${hydra.job.num}-${seed}"])
    assert [job.folder for job in own.jobs] == ["mine-0-0", "mine-1-1"]


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("hydra.launcher.retries=-1", "must be at least 0"),
        ("hydra.launcher.on_failure=maybe", "choose from continue or stop"),
        ("hydra.launcher.time_limit=0", "must be over 0"),
        ("hydra.launcher.cores=none", "must be a whole number"),
        ("hydra.sweeper.max_batch_size=0", "must be at least 1"),
        ("hydra.sweeper.zip=seed", "must be a list of keys"),
        ("trainer.devices=[1]", "hydra.launcher.devices=[1] says which there are"),
        ("hydra.launcher.devices=[1]", "the jobs run on the processor"),
        ("model.parameter_budget=5000", "does not go with model.parameter_budget=5000"),
    ],
)
def test_mistakes_in_how_a_sweep_runs_are_told(tmp_path: Path, setting: str, remedy: str) -> None:
    process = forked(tmp_path, "train", "-m", "model.hidden_size=4,8", "trainer.accelerator=cpu", setting)
    assert process.returncode == 2
    assert remedy in process.stderr
    assert process.stderr.count("\n") == 1


def test_a_budget_buys_the_largest_hidden_size() -> None:
    for overrides in (
        [],
        ["model.num_layers=3"],
        ["model.bidirectional=true", "model.num_layers=2"],
        ["data=temporal_order"],
        ["data=temporal_order", "data.variant=6b", "model.bidirectional=true"],
    ):
        config = compose(["model.parameter_budget=5000", *overrides])
        counts = {}
        for size in (config.model.hidden_size, config.model.hidden_size + 1):
            larger = compose([f"model.hidden_size={size}", *overrides])
            module = build_module(larger, build_task(larger.data))
            counts[size] = sum(parameter.numel() for parameter in module.parameters())
            assert parameter_count(larger) == counts[size]
        assert counts[config.model.hidden_size] <= 5000 < counts[config.model.hidden_size + 1]


def test_a_run_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    process = forked(tmp_path, "train", "-m", "seed=1,1")
    assert process.returncode == 2
    assert process.stderr == "grulab: seed=1: jobs 0 and 1 are the same run; name it once\n"
    with pytest.raises(ConfigError, match="the same run"):
        compose_sweep(["name=a,b"])


def test_keys_that_only_go_together_may_be_swept_together() -> None:
    """min_length=20 is over the default max_length, but every job overrides max_length."""
    sweep = compose_sweep(["data.min_length=20", "data.max_length=30,40"])
    assert [job.config.data.max_length for job in sweep.jobs] == [30, 40]  # type: ignore[attr-defined]


def test_a_key_that_is_taken_away_is_not_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"model.hidden_size: has no value"):
        compose(["~model.hidden_size", "model.parameter_budget=5000"])


def test_ranges_of_floats_have_the_values_that_hydra_makes() -> None:
    """Hydra adds the step again and again: the number of values cannot be computed from the ends."""
    arguments = ["optimizer.lr=range(0.6,1.3,0.1)", "seed=range(8)"]
    jobs = expand(arguments, [["optimizer.lr", "seed"]], 10_000)
    assert len(jobs) == 8
    assert jobs[-1][1] == "seed=7"


def test_long_params_are_not_cut() -> None:
    seeds = ",".join(map(str, range(150)))
    sweep = compose_sweep([f"hydra.sweeper.params={{seed:'{seeds}'}}"])
    assert [job.config.seed for job in sweep.jobs] == list(range(150))

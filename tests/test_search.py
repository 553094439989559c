"""A search: what is tried, that a kill changes nothing, and what its report says."""

import json
import random
import shutil
from itertools import product
from pathlib import Path

import pytest
from experiments.sweeps.harness import kill_until_done, leaderboard

from grulab.config_error import ConfigError
from grulab.report.leaderboard import read_sweep
from grulab.report.search_sections import best_so_far
from grulab.sweep import manifest
from grulab.sweep.search_space import parse_space
from tests.conftest import SMALL, forked, grulab

SEARCH = [
    *SMALL, "hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.hidden_size=range(2,9,2)",
    "model.bidirectional=false,true", "hydra.sweeper.n_trials=5", "hydra.sweeper.seeds=[0,1]",
    "hydra.sweeper.confirm=2", "hydra.launcher.cores=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    process = forked(folder, "train", "-m", *SEARCH, "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    (folder / "output").write_text(process.stdout)
    return folder / "sweep"


def overrides_of(sweep: Path) -> list[list[str]]:
    known = manifest.read(sweep)
    assert known is not None
    return [job.overrides for job in known.jobs]


def test_a_search_ends_with_a_configuration_over_fresh_seeds(finished: Path) -> None:
    jobs = overrides_of(finished)
    trials = {tuple(line for line in job if not line.startswith("seed=")) for job in jobs}
    assert len(trials) == 5
    assert len(jobs) == 5 * 2 + 2
    for job in jobs:
        values = dict(line.split("=", 1) for line in job)
        assert 1e-3 <= float(values["optimizer.lr"]) <= 1e-1
        assert values["model.hidden_size"] in ("2", "4", "6", "8")
        assert values["model.bidirectional"] in ("False", "True")
    output = " ".join((finished.parent / "output").read_text().split())
    assert "Over fresh seeds (2), which did not choose it, val/accuracy is" in output
    assert "over the seeds that chose it (2), which flatter it." in output
    assert "What matters" in output
    assert (finished / "figures" / "search.png").is_file()
    board = read_sweep(finished)
    assert set(board.done["seed"]) == {0, 1}
    assert set(board.fresh["seed"]) == {2, 3}
    assert len(set(board.fresh["model.hidden_size"])) == 1
    assert best_so_far(board)[-1] == board.ranking["val/accuracy"].max()


def test_the_same_seed_proposes_the_same(finished: Path, tmp_path: Path) -> None:
    arguments = [line.replace("n_trials=5", "n_trials=3") for line in SEARCH]
    process = forked(tmp_path, "train", "-m", *arguments, "hydra.sweeper.confirm=0", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    assert overrides_of(tmp_path / "sweep") == overrides_of(finished)[:6]
    # A search that is to be longer goes on with what it would have tried.
    process = forked(tmp_path, "resume", "sweep", "hydra.sweeper.n_trials=5", "hydra.sweeper.confirm=2")
    assert process.returncode == 0, process.stderr
    assert overrides_of(tmp_path / "sweep") == overrides_of(finished)
    assert leaderboard(tmp_path / "sweep") == leaderboard(finished)


def test_a_smaller_space_leaves_trials_out_and_says_so(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "sweep")
    process = forked(tmp_path, "resume", "sweep", "model.hidden_size=2,4")
    assert process.returncode == 0, process.stderr
    sizes = [line for job in overrides_of(finished)[:10:2] for line in job if line.startswith("model.hidden_size")]
    outside = sum(line.endswith(("6", "8")) for line in sizes)
    assert f"note: {outside} trials have values that are not searched now" in process.stdout


def test_a_search_goes_on_for_as_long_as_it_began(finished: Path) -> None:
    process = forked(finished.parent, "resume", "sweep", "trainer.max_epochs=9")
    assert process.returncode == 2
    assert "trainer.max_epochs=9: the trials of this search have 2; put it back" in process.stderr


def test_kills_change_no_search(finished: Path, tmp_path: Path) -> None:
    kill_until_done(SEARCH, tmp_path / "sweep", 5, seconds=1.5, generator=random.Random(2))
    assert overrides_of(tmp_path / "sweep") == overrides_of(finished)
    assert leaderboard(tmp_path / "sweep") == leaderboard(finished)


def test_trials_stop_at_rungs(tmp_path: Path) -> None:
    arguments = [line for line in SEARCH if not line.startswith("trainer.max_epochs")]
    process = forked(
        tmp_path, "train", "-m", *arguments, "hydra.sweeper.rungs=[1,3]", "hydra.sweep.dir=sweep",
        "hydra.sweeper.n_trials=6",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    trials = known.jobs[:12]
    epochs = [job.config.trainer.max_epochs for job in trials]
    assert set(epochs) == {1, 3}
    # Both seeds of a trial go on, or none.
    assert epochs[::2] == epochs[1::2]
    # The first is the best of those before it.
    assert epochs[0] == 3
    assert "stopped at rung 1" in process.stdout


def test_a_space_of_few_values_is_tried_once_each(tmp_path: Path) -> None:
    process = forked(
        tmp_path, "train", "-m", *SMALL, "hydra/sweeper=optuna", "model.hidden_size=2,4", "model.num_layers=1,2",
        "hydra.sweeper.seeds=[0]", "hydra.sweeper.confirm=1", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    jobs = overrides_of(tmp_path / "sweep")
    tried = {(line[-3], line[-2]) for line in jobs}
    assert tried == set(
        product(("model.hidden_size=2", "model.hidden_size=4"), ("model.num_layers=1", "model.num_layers=2"))
    )
    assert len(jobs) == 5
    assert "over after 4 trials: nothing that is new was found" in process.stdout


def test_other_launchers_search_too(tmp_path: Path) -> None:
    arguments = [line.replace("n_trials=5", "n_trials=2") for line in SEARCH if "launcher" not in line]
    process = forked(
        tmp_path,
        "train",
        "-m",
        *arguments,
        "hydra/launcher=basic",
        "hydra.sweeper.confirm=0",
        "hydra.sweep.dir=sweep",
    )
    assert process.returncode == 0, process.stderr
    assert len(overrides_of(tmp_path / "sweep")) == 4


def test_a_journal_is_kept_for_the_dashboard(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "optuna.journal").read_text().splitlines()]
    assert len([line for line in lines if "distributions" in line]) == 5


def test_values_are_read_back_as_they_were_written() -> None:
    lines = [
        "a.b=tag(log,interval(1e-4,1e-1))",
        "c.d=range(8,129,8)",
        "e.f=int(interval(1,4))",
        "g.h=x,true,3",
        "i.j=1",
    ]
    log, steps, whole, choices = parse_space(lines)
    assert (log.is_log, log.is_whole, steps.low, steps.high, steps.step) == (True, False, 8, 128, 8)
    assert (whole.is_whole, whole.low, whole.high, choices.choices) == (True, 1, 4, ["x", "True", "3"])
    for axis, value in ((log, 0.00123456789), (log, 1e-4), (log, 0.1), (steps, 64), (whole, 2), (choices, "True")):
        text = axis.written(value).partition("=")[2]
        found = axis.read(text)
        assert axis.written(found) == f"{axis.key}={text}"
        if value != 0.00123456789:
            assert found == value
    assert log.read("0.2") is None
    assert steps.read("x") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.b=interval(2,1)", "must go from a number to a larger one"),
        ("a.b=tag(log,interval(0,1))", "has no logarithm at 0"),
        ("a.b=range(3,3)", "has no values"),
        ("a.b=glob(*)", "is a pattern"),
        ("a.b=x,x", "names a value twice"),
        ("a.b=tag(odd,interval(0,1))", "the tag odd has no meaning here"),
        ("a.b=tag(log,range(1,9,2))", "log and a step of 2 do not go together"),
    ],
)
def test_odd_axes_are_named(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^a.b") as caught:
        parse_space([line])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is searched"),
        (["model.hidden_size=range(0,9)"], "model.hidden_size=0: must be at least 1"),
        (["optimizer.lr=interval(0.1,1)", "seed=0,1"], "the seeds of a search are hydra.sweeper.seeds"),
        (["optimizer.lr=interval(0.1,1)", "hydra.sweeper.seeds=[0,0]"], "names a seed twice"),
        (
            ["optimizer.lr=interval(0.1,1)", "hydra.sweeper.n_trials=0"],
            "hydra.sweeper.n_trials=0: must be at least 1",
        ),
        (["optimizer.lr=interval(0.1,1)", "hydra.sweeper.rungs=[2,1]"], "must rise from one number of epochs"),
        (["optimizer.lr=interval(0.1,1)", "hydra.sweeper.tune=[seed]"], "hydra.sweeper.tune"),
    ],
)
def test_mistakes_of_a_search(tmp_path: Path, arguments: list[str], message: str) -> None:
    process = forked(tmp_path, "train", "-m", "hydra/sweeper=optuna", "trainer.accelerator=cpu", *arguments)
    assert process.returncode == 2, process.stdout
    assert message in process.stderr.splitlines()[0]
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_it_is_said_how_to_install_it(tmp_path: Path) -> None:
    program = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'optuna' else find(name, *a)\n"
        "from grulab.cli import main; sys.exit(main())"
    )
    process = grulab(tmp_path, "train", "-m", "hydra/sweeper=optuna", "optimizer.lr=interval(0.1,1)", program=program)
    assert process.returncode == 2
    assert process.stderr == "grulab: hydra/sweeper=optuna: needs Optuna: pip install 'grulab[search]'\n"


def test_a_search_that_gets_another_key_knows_what_it_has_tried(tmp_path: Path) -> None:
    """Trials from before have the key's value by default, and count as tried."""
    few = [*SMALL, "hydra/sweeper=optuna", "hydra.sweeper.seeds=[0]", "hydra.sweeper.confirm=0"]
    few += ["model.hidden_size=2,4", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep"]
    first = forked(tmp_path, "train", "-m", *few)
    assert first.returncode == 0, first.stderr
    more = ["model.bidirectional=false,true", "hydra.sweeper.n_trials=9"]
    process = forked(tmp_path, "resume", "sweep", *more)
    assert process.returncode == 0, process.stderr
    assert "not searched now" not in process.stdout
    known = manifest.read(tmp_path / "sweep")
    assert known is not None
    tried = [(job.config.model.hidden_size, job.config.model.bidirectional) for job in known.jobs]
    assert sorted(tried) == [(2, False), (2, True), (4, False), (4, True)]

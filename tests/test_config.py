"""Configuration errors: one line with key, value and remedy, before torch is imported or a folder is made."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from grulab.config.compose import compose
from grulab.config.conf_dir import config_dir
from grulab.config.notes import notes
from grulab.config.parse import parse
from grulab.config.same_run import flatten
from grulab.config.suggestions import valid_keys
from grulab.config_error import ConfigError
from grulab.sweep.compose_jobs import compose_sweep
from grulab.tasks.registry import task_names
from tests.sequences import make

TASKS = "files, hidden_markov, keep, sinusoids, slots, step_xor, temporal_order, word"
MISTAKES = {
    "model.hiden_size=8": "did you mean model.hidden_size?",
    "hidden_size=8": "did you mean model.hidden_size?",
    "see=1": "did you mean seed?",
    "hydra.sweeper.tuned=[optimizer.lr]": "did you mean hydra.sweeper.tune?",
    "rungs=[1,2]": "did you mean hydra.sweeper.rungs?",
    "hydra.launcher.core=3": "did you mean hydra.launcher.cores?",
    "hydra.sweeper.n_trials=3": "only hydra/sweeper=optuna has it",
    "dat=sinusoids": "did you mean data?",
    "data=sinusoid": f"choose from {TASKS}",
    "experiment=architectur": "choose from architecture",
    "model.hidden_size=abc": "must be a whole number",
    "model.hidden_size=8.5": "must be a whole number",
    "model.hidden_size=true": "must be a whole number",
    "model.hidden_size=0": "must be at least 1",
    "model.hidden_size=-1": "must be at least 1",
    "model.num_layers=0": "must be at least 1",
    "model.bidirectional=both": "must be true or false",
    "model.dropout=1.5": "must be under 1",
    "model.dropout=-0.1": "must be at least 0",
    "optimizer.lr=0": "must be over 0",
    "optimizer.lr=nan": "must be a finite number",
    "optimizer.lr=inf": "must be a finite number",
    "optimizer.lr=fast": "must be a number",
    "optimizer=sgd": "choose from adam, adamw",
    "data.min_length=0": "must be at least 1",
    "data.min_length=11": "is over data.max_length=10",
    "data.batch_size=0": "must be at least 1",
    "data.num_workers=-1": "must be at least 0",
    "data.frequencies=[0.1]": "at least 2 values",
    "data.frequencies=[0.1,0.9]": "must be at most 0.5",
    "data.frequencies=[0.1,0.1]": "each class needs its own",
    "data.level=easy": "only data=temporal_order has it",
    "data.task=hidden_markov": "write data=hidden_markov",
    "~data.task": "has no value",
    "data.task=parity": f"choose from {TASKS}",
    "trainer.max_epochs=0": "must be at least 1",
    "trainer.accelerator=tpux": "choose from auto, cpu, cuda, gpu or mps",
    "trainer.devices=64": "one device",
    "trainer.devices=[0,1]": "one device",
    "trainer.precision=8": "choose from 32-true",
    "trainer.gradient_clip_val=0": "must be over 0",
    "checkpoint.monitor=test/accuracy": "choose from val/accuracy, val/loss, val/balanced_accuracy or val/macro_f1",
    "seed=-1": "must be at least 0",
    "seed=4294967296": "must be under 4294967296",
    "seed=null": "must be a whole number",
    "name=a/b": "letters, digits",
    "+typo=1": "no such key",
    "+model.typo=1": "no such key",
    "+model.hidden_size=3": "leave out the +",
    "~model.hidden_size": "has no value",
    "=3": "write key=value",
    "model.hidden_size": "key=value",
    "model.hidden_size=8,16": "grulab train -m",
    "--config-name=foo": "no such file",
    "--config-dir=foo": "no such folder",
    "--faster": "unrecognized arguments: --faster",
    "--config-path=foo": "--config-dir adds to it",
    "--experimental-rerun=foo": "may hold code",
    "model=null": "choose from gru",
    "+model=gru": "leave out the +",
    "hydra.run.dir=/proc/run": "cannot be made",
    "model.hidden_size=99999999999999999999999": "must be at most 65536",
    "optimizer.lr=1e+38": "must be at most 3e+37",
    "trainer.devices=[true]": "one device",
    "data.noise=0": "must be at least 0.01",
    "model.parameter_budget=0": "must be at least 1",
    "model.parameter_budget=20": "a single unit needs",
    "trainer.threads=0": "must be at least 1",
    "--plan": "takes -m",
}

# Runs every command in one interpreter: main() must not import torch for any of them.
SCRIPT = """
import contextlib, io, json, sys
from grulab.cli import main
results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    results.append([code, out.getvalue(), err.getvalue(), "torch" in sys.modules])
print(json.dumps(results))
"""


def cli(folder: Path, *commands: list[str]) -> list[tuple[int, str, str, bool]]:
    """Run commands; return the exit code, stdout and stderr of each, and whether torch was imported by then."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return [tuple(result) for result in json.loads(process.stdout.splitlines()[-1])]


def test_every_mistake_is_one_line_without_torch_or_a_folder(tmp_path: Path) -> None:
    commands = [["train", mistake] for mistake in MISTAKES]
    for (mistake, remedy), (code, out, err, torch_imported) in zip(
        MISTAKES.items(), cli(tmp_path, *commands), strict=True
    ):
        context = f"{mistake}: {err}"
        assert code == 2, context
        assert out == "", context
        assert err.count("\n") == 1, context
        assert err.startswith("grulab: "), context
        assert remedy in err, context
        key = mistake.lstrip("+~-").partition("=")[0]
        assert key in err, context
        # For a list, the message may show only the wrong element.
        value = mistake.partition("=")[2]
        assert value in err or value.strip("[]").split(",")[-1].lower() in err.lower(), context
        assert not torch_imported, context
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_a_sweep_are_found_before_its_first_job(tmp_path: Path) -> None:
    ((code, _, err, torch_imported), *others) = cli(
        tmp_path,
        ["train", "-m", "model.hidden_size=8,0", "seed=0,-1", "model.num_layers=1,2"],
        ["train", "-m", "data=sinusoids,sinusoid"],
        ["train", "-m", "model.hiden_size=8,16"],
        ["train", "-m", "model.hidden_size=range(1,1)"],
        ["train", "-m", "--cfg", "job", "seed=0,1"],
    )
    assert code == 2
    assert err.splitlines() == [
        "grulab: seed=-1: must be at least 0, in 4 of 8 jobs:",
        "grulab:   job 2: model.hidden_size=8 seed=-1 model.num_layers=1",
        "grulab:   job 3: model.hidden_size=8 seed=-1 model.num_layers=2",
        "grulab:   job 6: model.hidden_size=0 seed=-1 model.num_layers=1",
        "grulab:   job 7: model.hidden_size=0 seed=-1 model.num_layers=2",
        "grulab: model.hidden_size=0: must be at least 1, in 4 of 8 jobs:",
        "grulab:   job 4: model.hidden_size=0 seed=0 model.num_layers=1",
        "grulab:   job 5: model.hidden_size=0 seed=0 model.num_layers=2",
        "grulab:   job 6: model.hidden_size=0 seed=-1 model.num_layers=1",
        "grulab:   job 7: model.hidden_size=0 seed=-1 model.num_layers=2",
    ]
    assert [other[0] for other in others] == [2, 2, 2, 2]
    assert f"choose from {TASKS}" in others[0][2]
    assert others[1][2] == "grulab: model.hiden_size=8,16: no such key; did you mean model.hidden_size?\n"
    assert "has no values" in others[2][2]
    assert "--multirun: does not go with --cfg" in others[3][2]
    assert not torch_imported
    assert list(tmp_path.iterdir()) == []


def test_a_whole_number_with_an_exponent_is_written_out() -> None:
    with pytest.raises(ConfigError, match=r"data.train_size=1000000.0: must be a whole number; write 1_000_000$"):
        compose(["data.train_size=1e6"])
    assert compose(["data.train_size=1_000_000"]).data == compose(["data.train_size=1000000"]).data


def test_overrides_are_a_list() -> None:
    with pytest.raises(ConfigError, match=r"seed=1: is text"):
        compose("seed=1")


def test_several_mistakes_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["model.hidden_size=0", "optimizer.lr=-1", "seed=x"])
    assert len(str(caught.value).splitlines()) == 3


def test_help_needs_no_torch(tmp_path: Path) -> None:
    top, train, job, nothing, verb, shell = cli(
        tmp_path,
        ["--help"],
        ["train", "--help"],
        ["train", "--cfg", "job"],
        [],
        ["trian"],
        ["-sc", "install=bash"],
    )
    assert "grulab trace" in top[1]
    assert "hidden_size: 8" in train[1]
    assert "experiment: architecture" in train[1]
    assert OmegaConf.create(job[1]).model.hidden_size == 8
    assert "grulab train" in nothing[1]
    assert "did you mean grulab train?" in verb[2]
    assert "hydra_bash_completion" in shell[1]
    assert [result[0] for result in (top, train, job, nothing, verb, shell)] == [0, 0, 0, 2, 2, 0]
    assert not shell[3]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("grulab tr", "train resume report board trace inspect evaluate predict export doctor work"),
        ("grulab train model.hid", "model.hidden_size="),
        ("grulab train data=", " ".join(f"data={task}" for task in TASKS.split(", "))),
    ],
)
def test_tab_completion_knows_the_verbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    ((code, out, _, torch_imported),) = cli(tmp_path, ["-sc", "query=bash"])
    assert (code, out.strip()) == (0, expected)
    assert not torch_imported


def test_what_the_machine_lacks_leaves_no_folder(tmp_path: Path) -> None:
    import torch

    missing = "mps" if torch.cuda.is_available() else "gpu"
    accelerator, device, precision = cli(
        tmp_path,
        ["train", f"trainer.accelerator={missing}"],
        ["train", "trainer.devices=[64]"],
        ["train", "trainer.accelerator=cpu", "trainer.precision=16-mixed"],
    )
    assert [result[0] for result in (accelerator, device, precision)] == [2, 2, 2]
    assert f"trainer.accelerator={missing}: this machine has no" in accelerator[2]
    assert "trainer.devices=[64]: this machine has" in device[2]
    assert "trainer.precision=16-mixed" in precision[2]
    assert list(tmp_path.iterdir()) == []


def test_experiments_of_ones_own(tmp_path: Path) -> None:
    """A user's --config-dir works for runs and sweeps, and common mistakes in its files get a clear message."""
    folder = tmp_path / "my 'own'" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nname: mine\nhydra: {sweeper: {params: {seed: '0,1'}}}\n")
    (folder / "unpacked.yaml").write_text("model: {hidden_size: 4}\n")
    (folder / "broken.yaml").write_text("model: {hidden_size: [\n")
    where = ["--config-dir", str(folder.parent)]
    bad, unpacked, broken = cli(
        tmp_path,
        ["train", "-m", *where, "experiment=mine", "model.hidden_size=0"],
        ["train", *where, "experiment=unpacked"],
        ["train", *where, "experiment=broken"],
    )
    assert [result[0] for result in (bad, unpacked, broken)] == [2, 2, 2]
    assert bad[2] == "grulab: model.hidden_size=0: must be at least 1\n"
    assert "# @package _global_" in unpacked[2]
    assert broken[2].count("\n") == 1
    searchpath = f"hydra.searchpath=['file://{folder.parent}']".replace("my 'own'", "my \\'own\\'")
    sweep = compose_sweep([searchpath, "experiment=mine"])
    assert [(job.config.name, job.config.seed) for job in sweep.jobs] == [("mine", 0), ("mine", 1)]


@pytest.mark.parametrize("task", task_names())
def test_yaml_and_schema_hold_the_same_keys(task: str, tmp_path: Path) -> None:
    config = compose([f"data={task}", *file_of(f"data={task}", tmp_path)])
    assert config.data.task == task  # type: ignore[attr-defined]
    assert sorted(flatten(config.to_dict())) == sorted(valid_keys(task))
    # Every task has a YAML file, and every YAML file a task.
    assert {path.stem for path in (config_dir() / "data").glob("*.yaml")} == set(task_names())


def file_of(choice: str, folder: Path) -> list[str]:
    """Return what a choice needs besides: data=files has no default file."""
    return [f"data.path={make().write(folder / 'a.csv')}"] if choice == "data=files" else []


def every_choice() -> list[str]:
    groups = [path for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra"]
    return sorted(f"{group.name}={path.stem}" for group in groups for path in group.glob("*.yaml"))


@pytest.mark.parametrize("choice", every_choice())
def test_every_choice_composes(choice: str, tmp_path: Path) -> None:
    for job in compose_sweep([choice, *file_of(choice, tmp_path)]).jobs:
        assert parse(job.config.to_dict()) == job.config


@pytest.mark.parametrize(
    "path", sorted(config_dir().glob("[!h]*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_knob_is_explained(path: Path) -> None:
    assert "#" in path.read_text() or "defaults:" in path.read_text()


def test_the_architecture_experiment_is_the_sweep_it_says() -> None:
    sweep = compose_sweep(["experiment=architecture"])
    points = {
        (c.model.hidden_size, c.model.num_layers, c.model.bidirectional, c.seed): c.hash()
        for c in (job.config for job in sweep.jobs)
    }
    expected = {(h, n, b, s) for h in (8, 16, 32) for n in (1, 2) for b in (False, True) for s in (0, 1, 2)}
    assert set(points) == expected
    assert len(set(points.values())) == 36
    assert all(job.config.name == "architecture" for job in sweep.jobs)


def test_a_sweep_composes_each_job_as_hydra_would() -> None:
    """Setting swept values on the shared configuration gives the same jobs as composing each job by itself."""
    arguments = [
        "data=sinusoids,temporal_order",
        "model.hidden_size=8,16",
        "seed=0,1",
        "data.batch_size=7",
        "name=x",
    ]
    sweep = compose_sweep(arguments)
    assert len(sweep.jobs) == 8
    for job in sweep.jobs:
        assert compose(job.overrides) == job.config


def test_options_without_effect_are_named() -> None:
    assert notes(compose(["model.dropout=0.3", "model.num_layers=2"])) == []
    (note,) = notes(compose(["model.dropout=0.3"]))
    assert "model.dropout=0.3 has no effect with model.num_layers=1" in note
    (note,) = notes(compose(["checkpoint.every_n_epochs=9"]))
    assert "checkpoint.every_n_epochs=9 has no effect" in note
    (note,) = notes(compose(["optimizer.schedule=linear", "trainer.max_epochs=1"]))
    assert "optimizer.schedule=linear has no effect with trainer.max_epochs=1" in note
    assert notes(compose(["optimizer.schedule=linear", "trainer.max_epochs=2"])) == []


def test_plain_values_of_the_wrong_kind_are_refused() -> None:
    values: dict[str, Any] = compose().to_dict()
    for section in ("data", "model", "trainer"):
        with pytest.raises(ConfigError, match=section):
            parse(values | {section: 3})
    for task, shown in ((5, "5"), (None, "null")):
        with pytest.raises(ConfigError, match=rf"data.task={shown}: choose from {TASKS}"):
            parse(values | {"data": values["data"] | {"task": task}})
    with pytest.raises(ConfigError, match=r"data.num_features: has no value"):
        parse(values | {"data": {k: v for k, v in values["data"].items() if k != "num_features"}})


def test_a_key_of_several_other_tasks_names_them_all() -> None:
    tasks = "hidden_markov,keep,sinusoids,slots,step_xor,temporal_order,word"
    with pytest.raises(ConfigError, match=f"data.fresh=true: no such key; only data={tasks} have it"):
        compose(["data=files", "data.path=none.npz", "data.fresh=true"])

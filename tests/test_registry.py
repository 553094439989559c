"""Tasks are plug-ins: a task from another package works everywhere; a missing or broken task is a one-line error."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from grulab.config.compose import compose
from grulab.config.parse import parse
from grulab.config.suggestions import valid_keys
from grulab.config_error import ConfigError
from grulab.run_folder.summary import read_summary
from grulab.tasks.base import DataConfig, GeneratedTask, Task
from grulab.tasks.registry import build_task, find_task, imported_tasks, task_names
from grulab.training.accuracy_by_length import accuracy_by_length, quantile_starts, uniform_starts
from tests.conftest import GENERATED, SMALL, grulab

# A task from another package: the sign of the sum, with an unknown ceiling and mostly short sequences.
OUTSIDE = """
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from grulab.field_types import STRICT, Count
from grulab.tasks import counter_rng
from grulab.tasks.base import GeneratedDataConfig, GeneratedTask, Sequences
from grulab.tasks.registry import register_task


@dataclass(frozen=True, config=STRICT)
class SignConfig(GeneratedDataConfig):
    task: Literal["sign"]
    width: Count


@register_task(SignConfig)
class Sign(GeneratedTask):
    lengths_are_uniform = False

    def __init__(self, config):
        self.config = config
        self.num_features, self.num_classes, self.chance = config.width, 2, 0.5
        self.length_range = (1, 40)

    def lengths(self, seed, split, indices):
        draws = counter_rng.uniform(seed, split, "length", indices, 1)[:, 0]
        return 1 + np.floor(39 * draws**4).astype(np.int64)

    def generate(self, seed, split, indices):
        lengths = self.lengths(seed, split, indices)
        shape = (len(indices), int(lengths.max()), self.num_features)
        x = counter_rng.normal(seed, split, "x", indices, shape[1] * shape[2]).reshape(shape)
        x[np.arange(shape[1]) >= lengths[:, None]] = 0
        return Sequences(x.astype(np.float32), lengths, (x.sum(axis=(1, 2)) > 0).astype(np.int64))

    def ceiling(self):
        return None
"""
YAML = "task: sign\nseed: 0\ntrain_size: 65\nval_size: 33\ntest_size: 600\nwidth: 2\nbatch_size: 32\nnum_workers: 0\n"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with one working and three faulty tasks; return the folder of its YAML files."""
    site = tmp_path / "site"
    metadata = site / "others-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "others_task.py").write_text(OUTSIDE)
    (site / "others_broken.py").write_text("import no_such_module\n")
    (site / "others_silent.py").write_text("")
    (site / "others_exits.py").write_text("import sys\nsys.exit(0)\n")
    typed = OUTSIDE.replace('"sign"', '"typed"').replace(
        "width: Count", "width: Count\n    pair: tuple[int, int] = (1, 2)"
    )
    (site / "others_typed.py").write_text(typed)
    # Sizes as NumPy's integers, which labels.max() + 1 gives.
    (site / "others_numpy.py").write_text(
        OUTSIDE.replace('"sign"', '"numpy"')
        .replace("width: Count", "width: int")
        .replace("config.width, 2, 0.5", "np.int64(config.width), np.int64(2), np.float32(0.5)")
    )
    (site / "others_sinusoids.py").write_text(OUTSIDE.replace('"sign"', '"sinusoids"'))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[grulab.tasks]\nsign = others_task\nbroken = others_broken\nsilent = others_silent:Nothing\n"
        "mute = others_silent\nbase = others_task\ntwice = others_sinusoids\n"
        "exits = others_exits\ntyped = others_typed\nnumpy = others_numpy\n"
    )
    conf = tmp_path / "conf" / "data"
    conf.mkdir(parents=True)
    for name in ("sign", "typed", "numpy"):
        (conf / f"{name}.yaml").write_text(YAML.replace("sign", name))
    monkeypatch.setenv("PYTHONPATH", str(site))
    return conf.parent


def test_a_task_of_another_package_trains_sweeps_and_is_reported(outside: Path, tmp_path: Path) -> None:
    where = ["--config-dir", str(outside), "data=sign", "trainer.accelerator=cpu", "trainer.max_epochs=2"]
    process = grulab(tmp_path, "train", *where, "hydra.run.dir=run")
    assert process.returncode == 0, process.stderr
    assert "(chance 0.500, ceiling unknown)" in process.stdout
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    assert (summary["ceiling"], summary["chance"]) == (None, 0.5)
    # The ranges are quantiles of the test lengths, so every range holds sequences.
    counts = summary["sequences_by_length"]
    assert sum(counts.values()) == 600
    assert len(counts) >= 3
    assert {f"test/accuracy_by_length/{name}" for name in counts} < summary["metrics"].keys()
    process = grulab(tmp_path, "resume", "run", "trainer.max_epochs=3")
    assert process.returncode == 0, process.stderr
    process = grulab(tmp_path, "trace", "run")
    assert process.returncode == 0, process.stderr
    assert "ceiling (unknown)" in process.stdout
    process = grulab(tmp_path, "train", "-m", *where, "seed=0,1", "data.width=1,2", "hydra.sweep.dir=sweep")
    assert process.returncode == 0, process.stderr
    assert "chance 0.500, ceiling unknown" in process.stdout
    assert (tmp_path / "sweep" / "figures" / "learning.png").is_file()


def test_sizes_may_be_numbers_of_numpy(outside: Path, tmp_path: Path) -> None:
    """They would not be plain data in a checkpoint, and the run would fail at its end."""
    where = ["--config-dir", str(outside), "data=numpy", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    process = grulab(tmp_path, "train", *where, "hydra.run.dir=run")
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("ceiling", ["float('nan')", "2.0", "1 / 0"])
def test_a_ceiling_that_is_none_fails_the_run(outside: Path, tmp_path: Path, ceiling: str) -> None:
    module = tmp_path / "site" / "others_task.py"
    module.write_text(module.read_text().replace("return None", f"return {ceiling}"))
    where = ["--config-dir", str(outside), "data=sign", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    process = grulab(tmp_path, "train", *where, "hydra.run.dir=run")
    assert process.returncode in (1, 2)
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    assert summary["status"] == "failed"
    assert ("ceiling" in summary["error"]["message"]) == (ceiling != "1 / 0")


def test_no_curve_is_drawn_of_an_unknown_ceiling(outside: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    where = ["--config-dir", str(outside), "data=sign", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    assert grulab(tmp_path, "train", *where, "hydra.run.dir=run").returncode == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert "val/chance" in tags
    assert "val/ceiling" not in tags


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data.task=broken"], "data.task=broken: others_broken cannot be imported (ModuleNotFoundError: "),
        (["data.task=silent"], "data.task=silent: others_silent:Nothing cannot be imported (AttributeError: "),
        (["data.task=mute"], "data.task=mute: others_silent does not register it; decorate its class"),
        (["data.task=twice"], "data.task=twice: others_sinusoids cannot be imported (ValueError: grulab has a task "),
        (["data.task=base"], "data.task=base: others_task does not register it"),
        (["data.task=missing"], "data.task=missing: choose from base, broken, exits, "),
        (["data.task=registry"], "data.task=registry: choose from base, broken, exits, "),
        (["data.task=os.path"], "data.task=os.path: choose from base, broken, exits, "),
        (["data=sign", "data.width=0"], "data.width=0: must be at least 1"),
        (["data=sign", "data.wdth=1"], "data.wdth=1: no such key; did you mean data.width?"),
        (["data.task=exits"], "data.task=exits: others_exits cannot be imported (SystemExit: 0); "),
        (["data=typed"], "data.pair=(1, 2): its schema makes it a tuple, which JSON and checkpoints do not keep; "),
        (["data=numpy", "data.width=0"], "data.task=numpy: it has 0 features and 2 classes; "),
        (["data.lenght=5"], "data.lenght=5: no such key; did you mean data.min_length?"),
    ],
)
def test_a_missing_or_broken_task_is_one_line(outside: Path, tmp_path: Path, overrides: list[str], told: str) -> None:
    before = sorted(tmp_path.iterdir())
    process = grulab(tmp_path, "train", "--config-dir", str(outside), *overrides)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(f"grulab: {told}")
    assert process.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_stored_run_of_a_task_that_is_not_installed_is_named(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--config-dir", str(outside), "data=sign", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    assert grulab(tmp_path, "train", *where, "hydra.run.dir=run").returncode == 0
    assert grulab(tmp_path, "train", "-m", *where, "seed=0,1", "hydra.sweep.dir=sweep").returncode == 0
    monkeypatch.delenv("PYTHONPATH")
    for verb in ("resume", "trace"):
        process = grulab(tmp_path, verb, "run")
        assert process.returncode == 2
        assert "data.task=sign: choose from" in process.stderr
        assert "install the package that has this task" in process.stderr
    for verb in ("resume", "report"):
        process = grulab(tmp_path, verb, "sweep")
        assert process.returncode == 2
        assert process.stderr.startswith("grulab: sweep/sweep.json: data.task=sign: choose from")
        assert "install the package that has this task" in process.stderr
        assert "remove it" not in process.stderr


@pytest.mark.parametrize("name", GENERATED)
def test_a_task_is_built_from_its_configuration(name: str) -> None:
    config = compose([f"data={name}"])
    task = build_task(config.data)
    assert type(task) is find_task(name)
    assert isinstance(config.data, find_task(name).config_class)
    assert build_task(config.data) is task
    for split in ("train", "val", "test"):
        assert task.size(split) > 0
    assert set(valid_keys(name)) >= {"data.task", "data.seed", "data.batch_size", "data.num_workers"}


def test_nothing_but_its_file_knows_a_task() -> None:
    """A task is added as one file in tasks/ and one in conf/data/."""
    import grulab as package

    sources = Path(package.__file__).parent
    # "files" is a word, and what has learned from a file can be used without it.
    for name in set(imported_tasks()) & set(GENERATED):
        # So are some tasks' names.
        is_a_word = name in ("keep", "slots", "word")
        pattern = re.compile(rf"tasks\.{name}\b|tasks import .*\b{name}\b|data={name}\b" if is_a_word else name)
        knowing = [
            path.name
            for path in sources.rglob("*.py")
            if pattern.search(path.read_text()) and path.relative_to(sources) != Path("tasks", f"{name}.py")
        ]
        assert knowing == [], name


def test_a_configuration_is_parsed_without_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing must not build the task, because a stored configuration may be read where the data are missing."""
    values = compose().to_dict()
    for name in task_names():
        monkeypatch.setattr(find_task(name), "__init__", lambda *_: pytest.fail("the task was built"))
    assert parse(values).to_dict() == values


class Lengths(GeneratedTask):
    """A stub of a task with a range of lengths only."""

    def __init__(self, shortest: int, longest: int, are_uniform: bool) -> None:
        self.length_range = (shortest, longest)
        self.lengths_are_uniform = are_uniform

    def generate(self, *_: object) -> None:  # type: ignore[override]
        raise AssertionError

    def ceiling(self) -> None:
        return None


def outcomes(lengths: list[int], correct: list[bool]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return test outcomes in batches of three."""
    pairs = [torch.tensor(lengths).split(3), torch.tensor(correct).split(3)]
    return list(zip(*pairs, strict=True))


def test_ranges_of_uniform_lengths_have_equal_widths() -> None:
    assert uniform_starts(5, 10) == [5, 6, 7, 8, 9, 10]
    assert uniform_starts(30, 40) == [30, 32, 34, 36, 38, 40]
    assert uniform_starts(7, 8) == [7, 8]
    table = accuracy_by_length(Lengths(30, 40, True), outcomes([30, 31, 40, 33], [True, False, True, True]))
    assert table.to_dict("list") == {
        "range": ["30-31", "32-33", "40-40"],
        "accuracy": [0.5, 1.0, 1.0],
        "sequences": [2, 1, 1],
    }


def test_ranges_of_other_lengths_hold_equally_many_sequences() -> None:
    rng = np.random.default_rng(0)
    lengths = 1 + rng.exponential(50, size=6000).astype(np.int64)
    table = accuracy_by_length(Lengths(1, 10_000, False), outcomes(lengths.tolist(), (lengths % 2 == 0).tolist()))
    assert len(table) == 6
    assert table["sequences"].sum() == 6000
    assert (table["sequences"] / 1000 - 1).abs().max() < 0.15
    # Each range counts exactly the sequences with a length inside it.
    for name, accuracy, count in table.itertuples(index=False):
        low, high = map(int, name.split("-"))
        inside = lengths[(low <= lengths) & (lengths <= high)]
        assert len(inside) == count
        assert (inside % 2 == 0).mean() == pytest.approx(accuracy)
    assert int(table["range"].iloc[-1].split("-")[1]) == lengths.max()


@pytest.mark.parametrize("lengths", [[7], [7] * 50, [1] * 99 + [1000], list(range(1, 7))])
def test_ranges_of_few_lengths(lengths: list[int]) -> None:
    starts = quantile_starts(np.array(lengths))
    assert starts[0] == min(lengths)
    assert len(starts) == len(set(starts)) <= 6
    table = accuracy_by_length(Lengths(1, 1000, False), outcomes(lengths, [True] * len(lengths)))
    assert table["sequences"].sum() == len(lengths)


def test_summary_counts_the_sequences_of_each_length_range(tmp_path: Path) -> None:
    from grulab import train

    summary = train(compose(SMALL), tmp_path)
    counts = summary["sequences_by_length"]
    assert sum(counts.values()) == 40
    assert [f"test/accuracy_by_length/{name}" for name in counts] == [
        tag for tag in summary["metrics"] if "by_length" in tag
    ]
    assert json.loads((tmp_path / "summary.json").read_text())["sequences_by_length"] == counts


def test_a_task_is_what_its_base_says() -> None:
    assert issubclass(find_task("sinusoids"), Task)
    assert issubclass(find_task("sinusoids").config_class, DataConfig)
    with pytest.raises(ConfigError, match="choose from"):
        find_task("os")
    # Finding a task imports neither another task nor torch nor pandas.
    program = (
        "import sys; from grulab.tasks.registry import find_task; find_task('sinusoids'); print(sorted(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "temporal_order" not in loaded
    assert "'torch'" not in loaded
    assert pd.__name__ not in loaded


def test_a_task_without_its_data_is_a_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_data(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "series.csv")

    monkeypatch.setattr(find_task("sinusoids"), "__init__", without_data)
    with pytest.raises(ConfigError, match=r"data.task=sinusoids: .*series.csv"):
        compose(["data.seed=77", "model.parameter_budget=500"])

"""TensorBoard on the answer: short names, pinned cards, means with their spread."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from grulab.report.short_names import short_names
from tests.conftest import SMALL, forked


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    process = forked(folder, "train", "-m", *SMALL, "model.hidden_size=4,8", "seed=0,1,2")
    assert process.returncode == 0, process.stderr
    (found,) = (folder / "outputs" / "sweeps" / "sinusoids").iterdir()
    return found


def test_names_are_short_and_different() -> None:
    runs = [
        {"model.hidden_size": size, "model.bidirectional": both, "seed": seed}
        for size in (8, 16)
        for both in (False, True)
        for seed in (0, 1)
    ]
    names, short = short_names(runs)
    assert names[:4] == ["hs8 s0", "hs8 s1", "hs8 bidir s0", "hs8 bidir s1"]
    assert short == {"hs": "model.hidden_size", "bidir": "model.bidirectional", "s": "seed"}
    # Equal abbreviations, odd values, and nothing that differs.
    names, _ = short_names([{"a.learning_rate": 1, "b.long_run": 2}, {"a.learning_rate": 1, "b.long_run": 3}])
    assert names == ["learning_rate1 long_run2", "learning_rate1 long_run3"]
    assert short_names([{"data.path": "../a b"}, {"data.path": "../a/b"}])[0] == ["path..-a-b", "path..-a-b 2"]
    assert short_names([{}])[0] == ["run"]
    assert all("/" not in name for name in short_names([{"x": "a/../b"}])[0])


def test_the_board_serves_a_sweep(sweep: Path, tmp_path: Path) -> None:
    """Without a folder, the newest; with links that are gone afterwards."""
    command = [sys.executable, "-c", "import sys; from grulab.cli import main; sys.exit(main())", "board"]
    with subprocess.Popen(
        command, cwd=sweep.parents[3], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            address = re.search(r"http://\S+", lines[-1])
            assert address is not None, lines
            assert "pinnedCards" in address[0]
            assert lines[0] == "hs     model.hidden_size\n"
            wanted = {f"hs{size} s{seed}" for size in (4, 8) for seed in (0, 1, 2)} | {"mean hs4", "mean hs8"}
            until = time.monotonic() + 60
            runs: set[str] = set()
            while runs != wanted and time.monotonic() < until:
                time.sleep(0.5)
                with urllib.request.urlopen(address[0].split("?")[0] + "data/runs") as answer:
                    runs = set(json.loads(answer.read()))
            assert runs == wanted
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_means_are_those_of_the_seeds(sweep: Path) -> None:
    jobs = sorted(sweep.glob("*hidden_size-8*"))
    table = pd.concat(pd.read_csv(job / "metrics.csv") for job in jobs)
    events = EventAccumulator(str(sweep / "means" / "hs8"))
    events.Reload()
    points = events.Scalars("val/accuracy")
    expected = table.groupby("epoch")["val/accuracy"].mean()
    np.testing.assert_allclose([point.value for point in points], expected, rtol=1e-6)
    assert [point.step for point in points] == table.groupby("epoch")["step"].first().tolist()
    low, high = events.Scalars("val/accuracy_low"), events.Scalars("val/accuracy_high")
    assert all(
        0 <= one.value <= mean.value <= other.value <= 1 for one, mean, other in zip(low, points, high, strict=True)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "outputs/: holds no sweep and no run; begin one with grulab train, or name a folder"),
        (["missing"], "missing: no such folder"),
        (["--port", "0"], "--port 0: choose from 1 to 65535"),
    ],
)
def test_mistakes_of_a_board(tmp_path: Path, arguments: list[str], message: str) -> None:
    process = forked(tmp_path, "board", *arguments)
    assert process.returncode == 2
    assert process.stderr == f"grulab: {message}\n"

"""Sweeps on Ray: on a Ray of their own (make test-ray), and what needs none."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from experiments.exact_resume.harness import differences
from experiments.sweeps.harness import Sweep, done_jobs, leaderboard

from grulab.cluster import ray_guard, ray_task
from grulab.cluster.ray_cluster import RayCluster
from grulab.config_error import ConfigError
from grulab.sweep import ray_settings
from tests.conftest import SIX_JOBS, SLICE_SETTINGS, SLOW_JOBS, forked, grulab

RAY = ["hydra/launcher=ray", "hydra.launcher.tasks=2"]
LONG = [*SLOW_JOBS, "trainer.max_epochs=250"]
SETTINGS = {
    "address": None, "num_cpus": 1, "num_gpus": None, "max_retries": 3, "tasks": None, "jobs_per_task": None,
    **SLICE_SETTINGS,
}  # fmt: skip

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="make test-ray runs it with Ray")


@needs_ray
def test_a_sweep_on_ray_ends_as_it_does_here(tmp_path: Path) -> None:
    sweep = Sweep(["train", "-m", *SIX_JOBS, *RAY, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log")
    assert sweep.process.wait(180) == 0, (tmp_path / "log").read_text()
    assert not sweep.members()
    log = (tmp_path / "log").read_text()
    assert "2 tasks for 6 jobs" in log
    (tmp_path / "alone").mkdir()
    assert grulab(tmp_path / "alone", "train", "-m", *SIX_JOBS, "hydra.sweep.dir=sweep").returncode == 0
    assert leaderboard(tmp_path / "sweep") == leaderboard(tmp_path / "alone" / "sweep")
    # Done, no Ray is started.
    again = grulab(tmp_path, "resume", "sweep")
    assert again.returncode == 0
    assert "tasks for" not in again.stdout


def _command_line(pid: int) -> str:
    """Return the command line of a process; one that is ending has none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _working_in(folder: Path) -> list[str]:
    """Return the command lines of the processes whose working directory this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(_command_line(int(process.name)))
    return [words for words in found if words]


@needs_ray
@pytest.mark.parametrize("victim", ["driver", "ray::work", "raylet", "grulab work", "interrupt"])
def test_whatever_is_killed_nothing_stays_and_a_resume_goes_on(
    tmp_path: Path, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without their logs the guard would not find Ray's processes.
    monkeypatch.setenv("RAY_LOG_TO_STDERR", "1")
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    sweep = Sweep(["train", "-m", *LONG, *RAY, "hydra.sweep.dir=sweep"], tmp_path, tmp_path / "log")
    sweep.wait_until(lambda: len(list((tmp_path / "sweep").glob("0*/metrics.csv"))) == 2)
    time.sleep(1)
    names = {pid: _command_line(pid) for pid in sweep.members()}
    nice = {os.getpriority(os.PRIO_PROCESS, pid) for pid, name in names.items() if "grulab work" in name}
    assert nice == {os.getpriority(os.PRIO_PROCESS, 0)}
    if victim == "driver":
        sweep.process.kill()
    elif victim == "interrupt":
        sweep.process.send_signal(signal.SIGINT)
    else:
        os.kill(next(pid for pid, name in names.items() if victim in name), signal.SIGKILL)
    code = sweep.process.wait(180)
    if victim != "driver":
        assert "note: RAY_LOG_TO_STDERR=1 has no effect" in (tmp_path / "log").read_text()
    assert not sweep.orphans()
    # The guard was the last of those with a mark; Ray's agents may have lost theirs.
    assert not _working_in(tmp_path)
    assert not list(Path("/tmp").glob("ray-*/session_*"))
    if code != 0:
        assert code in (1, 130, -signal.SIGKILL)
        assert grulab(tmp_path, "resume", "sweep").returncode == 0
    assert len(done_jobs(tmp_path / "sweep")) == 2
    words = [word for word in LONG if "seed" not in word]
    assert grulab(tmp_path, "train", *words, "seed=1", "hydra.run.dir=alone").returncode == 0
    assert not differences(tmp_path / "alone", tmp_path / "sweep" / "001_seed-1")


@needs_ray
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_cpus=4096", "hydra.launcher.num_cpus=4096: no node of this Ray has so many"),
        ("num_gpus=1", "hydra.launcher.num_cpus=1 and hydra.launcher.num_gpus=1: no node of this Ray has so many"),
        ("address=127.0.0.1:1", "hydra.launcher.address=127.0.0.1:1: no Ray answers there (Connection refused)"),
        ("address=nowhere:x", "hydra.launcher.address=nowhere:x: no Ray answers there"),
    ],
)
def test_what_ray_has_not_is_one_line(tmp_path: Path, override: str, message: str) -> None:
    process = grulab(tmp_path, "train", "-m", *SIX_JOBS, *RAY, f"hydra.launcher.{override}", "hydra.sweep.dir=sweep")
    assert process.returncode == 2
    assert process.stderr.startswith(f"grulab: {message}")
    assert process.stderr.count("\n") == 1, process.stderr
    assert not (tmp_path / "sweep").exists()


@needs_ray
def test_a_node_that_does_not_see_the_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray_task, "read", lambda path: None)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with pytest.raises(ConfigError, match="does not see this folder"):
            RayCluster(ray).refuse_unseen_folder(tmp_path, ray_settings.parse_settings(SETTINGS))
    finally:
        ray.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_without_ray_there_is_one_line_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_settings, "find_spec", lambda name: None)
    process = forked(tmp_path, "train", "-m", *SIX_JOBS, *RAY, "hydra.sweep.dir=sweep")
    assert process.returncode == 2
    assert process.stderr == "grulab: hydra/launcher=ray: needs Ray: pip install 'grulab[ray]'\n"
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_gpus": 1.5}, "num_gpus=1.5: must be a whole number, or a share of one device"),
        ({"num_gpus": 0}, "num_gpus=0: must be over 0"),
        ({"address": "a b"}, "address=a b: must be auto, host:port"),
        ({"tasks": 2, "jobs_per_task": 2}, "jobs_per_task=2: does not go with tasks=2"),
        ({"max_retries": -1}, "max_retries=-1: must be at least 0"),
    ],
)
def test_mistakes_in_the_settings_are_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ray_settings.parse_settings(SETTINGS | values)


class FakeRay:
    """The nodes of a cluster."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": bool(resources), "Resources": resources} for resources in self._resources]


@pytest.mark.parametrize(
    ("num_cpus", "num_gpus", "room"), [(1, None, 12), (3, None, 3), (1, 1, 2), (1, 0.25, 8), (8, 1, 1)]
)
def test_the_room_of_a_cluster(
    num_cpus: int, num_gpus: float | None, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_settings, "find_spec", lambda name: True)
    settings = ray_settings.parse_settings(SETTINGS | {"num_cpus": num_cpus, "num_gpus": num_gpus})
    # A dead node, and two that differ.
    cluster = RayCluster(FakeRay({}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}))
    assert cluster.room_for(settings) == room


def test_the_guard_ends_what_writes_its_output_to_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    (tmp_path / "link").symlink_to(".")
    with (folder / "raylet.out").open("w") as output:
        member = subprocess.Popen(["sleep", "100"], stdout=output, env={}, start_new_session=True)
    others = []
    # A person's tail and editor, and a driver that has joined from elsewhere.
    for name, mode in (("raylet.out", "r"), (".raylet.out.swp", "w"), ("python-core-driver-1.log", "w")):
        with (folder / name).open(mode) as file:
            others.append(subprocess.Popen(["sleep", "100"], stdin=file))
    words = [sys.executable, ray_guard.__file__, str(tmp_path / "link" / "ray")]
    guard = subprocess.Popen(words, stdin=subprocess.PIPE)
    assert member.poll() is None
    assert guard.stdin is not None
    guard.stdin.close()
    assert member.wait(10) == -signal.SIGKILL
    assert guard.wait(15) == 0
    assert not folder.exists()
    for other in others:
        assert other.poll() is None
        other.kill()
        other.wait()


def test_a_task_says_how_its_slice_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert ray_task.work(["work", "nowhere", "--slice", "0/2"], str(log)) == 2
    assert "nowhere: no such folder" in log.read_text()
    assert ray_task.read(str(log)) == log.read_text()
    assert ray_task.read(str(tmp_path / "missing")) is None


def test_a_task_that_is_cancelled_lets_its_slice_save_itself(tmp_path: Path) -> None:
    written = grulab(tmp_path, "train", "-m", *LONG, "hydra.sweep.dir=sweep", "--only-write")
    assert written.returncode == 0, written.stderr
    program = """
import signal, sys, threading, time, _thread, pathlib
from grulab.cluster import ray_task

def cancel():
    while not list(pathlib.Path("sweep").glob("0*/metrics.csv")):
        time.sleep(0.1)
    # As Ray does it.
    _thread.interrupt_main()

threading.Thread(target=cancel, daemon=True).start()
try:
    ray_task.work(["work", "sweep", "--slice", "0/1"], "log")
except KeyboardInterrupt:
    sys.exit(0)
sys.exit("was not cancelled")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "stopped by a signal, and saved" in (tmp_path / "log").read_text()
    statuses = [json.loads(path.read_text())["status"] for path in (tmp_path / "sweep").glob("0*/summary.json")]
    assert "interrupted" in statuses

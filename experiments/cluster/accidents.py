"""Thirty accidents on a real SLURM: every sweep ends, at most after a resume, as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
from experiments.cluster.one_node import Cluster, one_node
from experiments.exact_resume.harness import SMALL, differences
from experiments.sweeps.harness import Sweep, leaderboard

_JOBS = 8
# The slower kind of step, so that there is something to interrupt.
_SLOW = ["model.backend=torch", "checkpoint.every_n_steps=20"]
_OVERRIDES = [*SMALL, "data.train_size=400", "trainer.max_epochs=40", *_SLOW]
SWEEP = ["train", "-m", *_OVERRIDES, "model.hidden_size=8,16", "seed=0,1,2,3"]
_SLURM = ["hydra/launcher=slurm", "hydra.launcher.tasks=2", "hydra.launcher.partition=low"]
# Long enough for a limit of a minute, which SLURM looks at every half minute.
_LONG = ["trainer.max_epochs=800"]
_RESUMES_AT_MOST = 4

Accident = Callable[[Cluster, Sweep, random.Random], None]


def _a_task(cluster: Cluster, generator: random.Random) -> int:
    return generator.choice(cluster.batch_processes())


def kill_a_job(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    jobs = [job for task in cluster.batch_processes() for job in cluster.jobs_of(task)]
    os.kill(generator.choice(jobs), signal.SIGKILL)


def kill_a_slice(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    os.kill(_a_task(cluster, generator), signal.SIGKILL)


def kill_slurmd(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    cluster.kill_node()
    time.sleep(generator.uniform(0, 3))
    cluster.start_node()


def kill_the_driver(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    driver.process.kill()


def interrupt_the_driver(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    driver.process.send_signal(signal.SIGINT)


def requeue(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    cluster.do("scontrol", "requeue", generator.choice(cluster.tasks("RUNNING")))


def preempt(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    cluster.do(
        "sbatch", "--partition=high", f"--cpus-per-task={os.cpu_count()}", "--output=/dev/null", "--wrap=sleep 3"
    )


def cancel(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    cluster.do("scancel", generator.choice(cluster.tasks("RUNNING")))


def cancel_all(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    cluster.do("scancel", "--me")


def warn(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    cluster.do("scancel", "--signal=USR1", "--batch", generator.choice(cluster.tasks("RUNNING")))


def node_down(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    node = cluster.do("sinfo", "--noheader", "--format=%n").split()[0]
    cluster.do("scontrol", "update", f"nodename={node}", "state=down", "reason=accident")
    time.sleep(generator.uniform(0, 3))
    # SLURM may have found that it is well before.
    with suppress(AssertionError):
        cluster.do("scontrol", "update", f"nodename={node}", "state=resume")


def nothing(cluster: Cluster, driver: Sweep, generator: random.Random) -> None:
    """The accident is another one: a time limit, or a full disk."""


ACCIDENTS: list[tuple[Accident, int]] = [
    (kill_a_job, 4),
    (kill_a_slice, 4),
    (kill_slurmd, 2),
    (kill_the_driver, 3),
    (interrupt_the_driver, 2),
    (requeue, 3),
    (preempt, 3),
    (cancel, 2),
    (cancel_all, 2),
    (warn, 2),
    (node_down, 2),
]


def survive(
    cluster: Cluster, accident: Accident, folder: Path, generator: random.Random, overrides: list[str]
) -> dict[str, object]:
    """Run a sweep, let an accident happen at a random moment, and resume until the sweep is done.

    Returns:
        The number of resumes, and of processes that were left.
    """
    log = folder.with_suffix(".log")
    os.environ |= cluster.environment
    driver = Sweep([*SWEEP, *_SLURM, *overrides, f"hydra.sweep.dir={folder.name}"], folder.parent, log)
    driver.wait_until(lambda: len(list(folder.glob("0*/metrics.csv"))) >= 1)
    time.sleep(generator.uniform(0, 2))
    with suppress(ProcessLookupError, IndexError):
        accident(cluster, driver, generator)
    code = driver.process.wait(timeout=300)
    resumes = 0
    while code != 0:
        assert resumes < _RESUMES_AT_MOST, log.read_text()
        resumes += 1
        driver = Sweep(["resume", folder.name], folder.parent, log)
        code = driver.process.wait(timeout=300)
    cluster.wait_until_empty()
    return {"accident": accident.__name__, "resumes": resumes, "processes left": len(driver.orphans())}


def full_disk(cluster: Cluster, folder: Path) -> dict[str, object]:
    """Run a sweep on a disk that is too small; make room; resume."""
    disk = folder.parent / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=True)
    try:
        log = folder.with_suffix(".log")
        os.environ |= cluster.environment
        first = Sweep([*SWEEP, *_SLURM, "hydra.sweep.dir=sweep"], disk, log)
        code = first.process.wait(timeout=300)
        assert code == 1, log.read_text()
        cluster.wait_until_empty()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        resumed = Sweep(["resume", "sweep"], disk, log)
        assert resumed.process.wait(timeout=300) == 0, log.read_text()
        cluster.wait_until_empty()
        shutil.copytree(disk / "sweep", folder)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
        disk.rmdir()
    return {"accident": "full_disk", "resumes": 1, "processes left": len(resumed.orphans())}


def different(expected: Path, actual: Path) -> int:
    """Return the number of jobs of a sweep that differ from those of another."""
    return sum(bool(differences(folder, actual / folder.name)) for folder in sorted(expected.glob("0*")))


def alone(folder: Path, overrides: list[str]) -> Path:
    """Run the sweep with the local launcher, without an accident."""
    command = Sweep([*SWEEP, *overrides, f"hydra.sweep.dir={folder.name}"], folder.parent, folder.with_suffix(".log"))
    assert command.process.wait(timeout=300) == 0, folder.with_suffix(".log").read_text()
    return folder


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="accidents-"))
    generator = random.Random(0)
    expected, expected_long = alone(root / "alone", []), alone(root / "alone-long", _LONG)
    rows = []
    with one_node(root / "cluster") as cluster:
        plan: list[tuple[Accident, list[str]]] = [
            (accident, []) for accident, times in ACCIDENTS for _ in range(times)
        ]
        plan += [(nothing, [*_LONG, "hydra.launcher.time=1"])] * 2
        for number, (accident, overrides) in enumerate(plan):
            folder = root / f"sweep-{number}"
            row = survive(cluster, accident, folder, generator, overrides)
            if overrides:
                row["accident"] = "time_limit_of_a_minute"
            rows.append(_judged(row, expected_long if overrides else expected, folder))
        try:
            rows.append(_judged(full_disk(cluster, root / "full"), expected, root / "full"))
        except (subprocess.CalledProcessError, FileNotFoundError):
            print("full_disk was left out: this user may not mount a file system", file=sys.stderr)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    grouped = table.groupby("accident", sort=False).agg(
        times=("resumes", "size"),
        resumes=("resumes", "max"),
        other_leaderboards=("another leaderboard", "sum"),
        runs_different=("runs different", "sum"),
        processes_left=("processes left", "sum"),
    )
    print(f"\n{len(table)} accidents\n")
    print(grouped.to_string())
    shutil.rmtree(root, ignore_errors=True)


def _judged(row: dict[str, object], expected: Path, folder: Path) -> dict[str, object]:
    row |= {
        "another leaderboard": leaderboard(expected) != leaderboard(folder),
        "runs different": different(expected, folder),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()

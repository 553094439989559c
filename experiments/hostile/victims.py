"""The folders under attack: a tiny run and a tiny sweep, each left alone and stopped inside its training."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.hostile.sandbox import Outcome, Violation, grulab, never

# Three epochs of three batches, the last of them a single sequence.
TINY = [
    "data.train_size=33",
    "data.val_size=17",
    "data.test_size=20",
    "data.batch_size=16",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "checkpoint.every_n_steps=2",
]
JOBS = ["seed=0,1", "hydra.launcher.cores=1"]
DONE, OPEN = "000_seed-0", "001_seed-1"
# The fifth batch: inside the second epoch, after two checkpoints.
_STOP_AT = 5
# The names of the folders: a run that is done and one that was stopped, and the same of a sweep.
RUN, STOPPED, SWEEP, HALF = "run", "stopped", "sweep", "half"


def make_victims(root: Path) -> None:
    """Make the four folders in ``root``, and the trace and the report of each. Call it in a process of its own."""
    load_libraries()
    root.mkdir()
    train, sweep = ["train", *TINY], ["train", "-m", *TINY, *JOBS]
    _make(root, [*train, f"hydra.run.dir={RUN}"], 0)
    _make(root, [*sweep, f"hydra.sweep.dir={SWEEP}"], 0)
    # The processes from here on stop themselves.
    _stop_inside(STOPPED, os.getpid)
    _make(root, [*train, f"hydra.run.dir={STOPPED}"], 143)
    # A job signals the sweep, which passes the signal on to the job.
    _stop_inside(OPEN, os.getppid)
    _make(root, [*sweep, f"hydra.sweep.dir={HALF}"], 143)
    for name in (RUN, STOPPED):
        _make(root, ["trace", name], 0)
        (root / name / "trace").rename(root / f"trace of {name}")


def load_libraries() -> None:
    """Import in this process what runs need, as a sweep does before it forks its jobs."""
    import torch

    # Imported for the forked processes, which find them in memory.
    import grulab.report.trace
    import grulab.training.resume  # noqa: F401
    from grulab.config.compose import compose
    from grulab.sweep.worker import prepare_to_fork

    torch.set_num_threads(1)
    # Twice, so that it remembers the data, as for the jobs of a sweep.
    prepare_to_fork([compose(TINY)] * 2)


def _make(root: Path, arguments: list[str], code: int) -> None:
    if not (root / "cwd").exists():
        (root / "cwd").symlink_to(root)
    outcome = grulab(arguments, root, 60)
    if outcome.code != code:
        raise RuntimeError(
            f"grulab {' '.join(arguments)} ended with {outcome.code}:\n{outcome.stdout}{outcome.stderr}"
        )


def _stop_inside(name: str, whom: Callable[[], int]) -> None:
    """Let runs in a folder of this name send SIGTERM to a process at a batch, and wait for it to come back."""
    from grulab.training.module import SequenceClassifier

    original = SequenceClassifier.training_step
    calls = 0

    def stop_first(module: SequenceClassifier, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += Path(module.trainer.default_root_dir).name == name
        if calls == _STOP_AT:
            calls += 1
            os.kill(whom(), signal.SIGTERM)
            time.sleep(1)
        return original(module, *args, **kwargs)

    # Replaced in this forked process alone; mypy rejects assigning to a method.
    SequenceClassifier.training_step = stop_first  # type: ignore[method-assign,assignment]


def other_numbers(expected: Path, actual: Path, *, with_curves: bool = True) -> Iterator[Violation]:
    """Yield how the results of a resumed run differ from those of the run left alone."""
    from experiments.exact_resume.harness import differences

    try:
        found = differences(expected, actual)
    # Whatever an attacked folder raises is a difference too.
    except Exception as error:
        found = [f"cannot be read: {type(error).__name__}: {error}"]
    if found := [line for line in found if with_curves or not line.startswith("TensorBoard")]:
        yield Violation("other numbers", "; ".join(found))


def refused_by_name(outcome: Outcome, name: str) -> Iterator[Violation]:
    """Yield a violation if a command fails without a word about the file at fault."""
    if outcome.code in (1, 2) and name not in outcome.stderr + outcome.stdout and not any(never(outcome)):
        yield Violation("the file is not named", outcome.stderr)


def resumed_run(
    victims: Path, folder: Path, outcome: Outcome, name: str, *, with_curves: bool = True
) -> Iterator[Violation]:
    """Judge the resume of a run whose file ``name`` was spoilt: exact, or refused by name."""
    if outcome.code == 0:
        yield from other_numbers(victims / RUN, folder, with_curves=with_curves)
    yield from refused_by_name(outcome, name)


def resumed_sweep(victims: Path, folder: Path, outcome: Outcome, spoilt: Path) -> Iterator[Violation]:
    """Judge the resume of a half sweep with a spoilt file (a path in its folder): exact, or refused by name.

    A file of a job concerns that job alone. What the finished job has in its folder is not read, apart from its
    summary.
    """
    job = spoilt.parts[0] if len(spoilt.parts) > 1 else None
    with suppress(OSError):
        # The terminal folds the cells of its table, in which the causes of failed jobs are.
        outcome = replace(outcome, stdout=(folder / "leaderboard.md").read_text())
    yield from refused_by_name(outcome, spoilt.name)
    if outcome.code == 0:
        yield from other_leaderboard(victims, folder)
        for name in {DONE, OPEN} - ({job} if job == DONE else set()):
            yield from other_numbers(victims / SWEEP / name, folder / name)
    elif outcome.code in (1, 2) and job == DONE and _status(folder / OPEN) != "done":
        yield Violation("a spoilt job stops its sweep", outcome.stderr)


def other_leaderboard(victims: Path, folder: Path) -> Iterator[Violation]:
    """Yield a violation if the leaderboard of a resumed sweep is not that of the sweep left alone."""
    if _leaderboard(victims / SWEEP) != _leaderboard(folder):
        yield Violation("other numbers", "leaderboard.csv")


def _leaderboard(sweep_dir: Path) -> str:
    from experiments.sweeps.harness import leaderboard

    try:
        return leaderboard(sweep_dir)
    # Whatever an attacked folder raises is told in place of a leaderboard.
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _status(run_dir: Path) -> str:
    try:
        return str(json.loads((run_dir / "summary.json").read_text())["status"])
    except (OSError, ValueError, KeyError):
        return "unknown"


def files_of(victim: Path) -> list[Path]:
    """Return the relative paths of the files in a folder, in a fixed order."""
    return sorted(path.relative_to(victim) for path in victim.rglob("*") if path.is_file())


def trace_of(victims: Path, name: str) -> str:
    """Return trace.md of an untouched run."""
    return (victims / f"trace of {name}" / "trace.md").read_text()

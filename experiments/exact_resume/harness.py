"""Kill runs at chosen moments, resume them until they are done, and compare them with an uninterrupted run."""

import itertools
import json
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from rich.progress import track
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from grulab.config.compose import compose
from grulab.run_folder import checkpoint_folder, paths
from grulab.run_folder.checkpoint_file import KEY
from grulab.run_folder.tensorboard_logger import RunLogger
from grulab.system.signals import Interrupted, blocked_signals, unblock_signals
from grulab.training.callbacks.checkpointing import Checkpointer
from grulab.training.callbacks.epoch_log import EpochLog
from grulab.training.module import SequenceClassifier
from grulab.training.resume import resume
from grulab.training.run import train

# Six epochs of seven batches, the last of them a single sequence.
SMALL = [
    "data.train_size=97",
    "data.val_size=40",
    "data.test_size=40",
    "data.batch_size=16",
    "trainer.max_epochs=6",
]

# Keys of summary.json: wall times, the number of resumes, the commit of the code, and the checksum of all that.
_MAY_DIFFER = ("seconds", "sequences_per_second", "started", "resumed", "git", "checksum")


@dataclass(frozen=True)
class Moment:
    """The moment at which a run is stopped: the n-th call of a method, or a number of seconds after the start.

    Attributes:
        place: a key of ``PLACES``, or "time".
        when: number of the call, from 1; or seconds.
        signum: signal sent to the process.
    """

    place: str
    when: float
    signum: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{signal.Signals(self.signum).name} at {self.place} {self.when:g}"


def _half_a_file(stop: Callable[[], None], original: Callable[..., None]) -> Callable[..., None]:
    def write_half(trainer: L.Trainer, path: Path) -> None:
        original(trainer, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        stop()
        path.write_bytes(whole)

    return write_half


def _before(stop: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    def stop_first(*args: Any, **kwargs: Any) -> Any:
        stop()
        return original(*args, **kwargs)

    return stop_first


def _after(stop: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    def stop_then(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        stop()
        return result

    return stop_then


# Places where a run can be stopped: owner, attribute, and the wrapper that inserts the stop.
PLACES: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "start-up": (RunLogger, "begin", _before),
    "batch": (SequenceClassifier, "training_step", _before),
    "validation": (SequenceClassifier, "validation_step", _before),
    "row written": (EpochLog, "_draw", _before),
    "curves written": (EpochLog, "_draw", _after),
    "half a checkpoint": (L.Trainer, "save_checkpoint", _half_a_file),
    "between renames": (checkpoint_folder, "_rename", _after),
    "checkpoint written": (Checkpointer, "_write", _after),
    "test": (SequenceClassifier, "test_step", _before),
    "summary": (RunLogger, "end", _before),
}


def random_moments(generator: random.Random, count: int) -> list[Moment]:
    """Return random moments at as many places as ``count`` allows; moments at a run's end come last."""
    places = [*PLACES, "time"]
    chosen = [place for _ in range(count // len(places) + 1) for place in generator.sample(places, len(places))]
    moments = []
    for place in chosen[:count]:
        # Low enough that the rest of the run still makes that many calls.
        limit = {"batch": 8, "start-up": 1, "test": 1, "summary": 1}.get(place, 2)
        when = generator.uniform(0.0, 0.4) if place == "time" else generator.randint(1, limit)
        moments.append(Moment(place, when, generator.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT])))
    return sorted(moments, key=lambda moment: moment.place in ("time", "test", "summary"))


def run_until_done(overrides: list[str], run_dir: Path, moments: list[Moment]) -> int:
    """Start a run and resume it until it is done, stopping it at each of the moments that it reaches.

    Each attempt is a fork of this process, which has already imported torch.

    Returns:
        The number of attempts that were stopped.
    """
    stopped = 0
    for moment in [*moments, None]:
        # A signal that comes before the attempt can tell how it ended waits until it can.
        with blocked_signals():
            pid = os.fork()
            if pid == 0:
                _attempt(overrides, run_dir, moment)
        if moment is not None and moment.place == "time":
            time.sleep(moment.when)
            os.kill(pid, moment.signum)
        code = _wait(pid)
        expected = {0} if moment is None else {0, -moment.signum, 128 + moment.signum}
        if code not in expected:
            raise RuntimeError(f"{run_dir}: exit code {code} after {moment}; see {run_dir}.log")
        stopped += code != 0
    return stopped


def stop_and_compare(
    folder: Path, axes: Mapping[str, Sequence[str]], overrides: Sequence[str], draw: Callable[[], list[Moment]]
) -> Iterator[tuple[tuple[str, ...], int, list[str], list[Moment]]]:
    """Run every combination of the axes' values twice, undisturbed and stopped at moments, and compare the two.

    Args:
        folder: of all runs.
        axes: the values of each key.
        overrides: those that all runs have.
        draw: () -> the moments of the next run.

    Yields:
        The values, how often the run was stopped, the differences, and the moments.
    """
    for number, values in enumerate(track(list(itertools.product(*axes.values())))):
        settings = [*overrides, *(f"{key}={value}" for key, value in zip(axes, values, strict=True))]
        alone, stopped = folder / f"{number:02d}-alone", folder / f"{number:02d}-killed"
        run_until_done(settings, alone, [])
        moments = draw()
        times = run_until_done(settings, stopped, moments)
        yield values, times, differences(alone, stopped), moments


def _wait(pid: int, seconds: float = 120) -> int:
    """Return a child's exit code, as subprocess does: minus the signal that ended it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    raise RuntimeError(f"process {pid} hangs")


def _attempt(overrides: list[str], run_dir: Path, moment: Moment | None) -> NoReturn:
    code = 1
    try:
        torch.set_num_threads(1)
        logging.basicConfig(filename=f"{run_dir}.log", level=logging.INFO, force=True)
        logging.info("attempt, %s", moment)
        if moment is not None and moment.place != "time":
            _arm(moment)
        unblock_signals()
        if (run_dir / "summary.json").is_file():
            resume(run_dir)
        else:
            train(compose(overrides), run_dir)
        code = 0
    except Interrupted as interrupted:
        code = interrupted.exit_code
    except KeyboardInterrupt:
        # The signal came while grulab's own handlers were not installed.
        code = 130
    except BaseException:
        logging.exception("failed")
    finally:
        os._exit(code)


def _arm(moment: Moment) -> None:
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == moment.when:
            os.kill(os.getpid(), moment.signum)

    owner, name, put_in = PLACES[moment.place]
    original = getattr(owner, name)
    replacement = put_in(stop, original)
    setattr(owner, name, staticmethod(replacement) if owner is EpochLog else replacement)


def differences(expected: Path, actual: Path) -> list[str]:
    """Return the differences between two runs' folders, apart from wall times; the study expects none."""
    found = []
    for name in (paths.LAST, paths.BEST):
        one, other = (
            torch.load(run / "checkpoints" / name, weights_only=True, map_location="cpu")
            for run in (expected, actual)
        )
        for content in (one, other):
            for row in content["callbacks"]["EpochLog"]["rows"]:
                del row["seconds"]
            # A run may go on with other values of keys that do not make it another run.
            del content[KEY]["config"]
        found += [f"{name}: {key}" for key in one.keys() | other.keys() if not same(one.get(key), other.get(key))]
    if table_of(expected) != table_of(actual):
        found.append("metrics.csv")
    if (curves := _curves(expected)) != _curves(actual):
        found.append("TensorBoard")
    for tag, points in curves.items():
        steps = [step for step, _ in points]
        if steps != sorted(set(steps)):
            found.append(f"TensorBoard: {tag} has steps {steps}")
    one, other = (json.loads((run / "summary.json").read_text()) for run in (expected, actual))
    found += [
        f"summary.json: {key}"
        for key in one.keys() | other.keys()
        if one.get(key) != other.get(key) and key not in _MAY_DIFFER
    ]
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two nested values are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def table_of(run: Path) -> list[str]:
    """Return metrics.csv without wall times."""
    with (run / "metrics.csv").open("rb") as file:
        return [line.decode().rsplit(",", 1)[0] for line in file]


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

"""``grulab work``: run a slice of a sweep that is written already, for a scheduler's jobs and arrays."""

import os
import platform
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from grulab.commands.argument_parser import ArgumentParser
from grulab.commands.hydra_app import call_hydra, parse_arguments, refuse_flags
from grulab.config.overrides import is_about_hydra, key_of, quoted, refuse_reference
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.sweep import manifest
from grulab.sweep.failures import SweepFailedError
from grulab.sweep.slices import ComeAgain, Slice, parse_slice
from grulab.sweep.slurm_settings import SUBMISSION_KEYS
from grulab.sweep.stored_arguments import CONFIG_DIR, CONFIG_NAME, refuse_foreign
from grulab.system.parent_death import end_with_parent
from grulab.system.signals import COME_AGAIN, Interrupted, install_handler

_SUBDIR = "hydra.output_subdir"
# Keys of Hydra that say what a slice is.
_OWN = ("hydra.sweep.dir", "hydra.sweeper")
_SWEEPER = "hydra_plugins.grulab.SliceSweeper"


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab work ARGUMENTS``.

    Raises:
        ConfigError: if an argument is invalid, or this machine lacks what the jobs need.
        SweepFailedError: at the end, if jobs failed.
        ComeAgain: after a signal; what has begun is saved.
    """
    parser = ArgumentParser(
        prog="grulab work",
        description="Run every N-th job of a sweep that grulab train -m ... --only-write has written. Jobs that are "
        "done are skipped, and begun ones go on where they stopped.",
        epilog=f"Exit codes: 0 all are done, 1 some failed, 2 a mistake, {COME_AGAIN} a signal came, all is "
        "saved: run it again. One process at a time may have a slice, and all divide the sweep by the same N.",
    )
    parser.add_argument("sweep_dir", metavar="SWEEP", help="the folder of a sweep, which every machine sees")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="keys of Hydra, such as hydra.launcher.*")
    parser.add_argument("--slice", metavar="I/N", required=True, help="the jobs I, I+N, I+2N, ...; I counts from 0")
    parser.add_argument("--slots", metavar="K", help="jobs at the same time; else as cores and devices allow")
    parser.add_argument("--skip", metavar="NUMBERS", default="", help="jobs to leave out, such as 3,7")
    parser.add_argument("--requeue", action="store_true", help="after SIGUSR1, ask SLURM to start this task again")
    parser.add_argument("--parent", metavar="PID", type=int, help="stop, saved, when this process ends (Linux)")
    parser.add_argument(CONFIG_DIR, metavar="FOLDER", help="the one that the sweep was begun with")
    options = parser.parse_intermixed_args(arguments)
    if own := next((line for line in options.overrides if not is_about_hydra(line)), None):
        raise ConfigError(
            f"{own}: the jobs are as {paths.SWEEP} has them; grulab resume {display_path(Path(options.sweep_dir))} "
            "can change some of their keys"
        )
    if own := next((line for line in options.overrides if key_of(line).startswith(_OWN)), None):
        raise ConfigError(f"{own}: a slice sets it itself; leave it out")
    if options.requeue and "SLURM_JOB_ID" not in os.environ:
        raise ConfigError("--requeue: this is no job of SLURM, which sets SLURM_JOB_ID; leave it out")
    came: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        raise Interrupted(signum)

    # Until the launcher installs its own; a signal that came before would be lost otherwise.
    install_handler(stop)
    if options.parent is not None:
        end_with_parent(options.parent, signal.SIGTERM)
    sweep_dir, slice_ = Path(options.sweep_dir), parse_slice(options.slice)
    slots, skip = _slots(options.slots), _numbers(options.skip)
    try:
        work(sweep_dir, slice_, slots, options.overrides, options.config_dir, skip)
    except BaseException as error:
        if isinstance(error, Interrupted):
            came.append(error.signum)
        if not came:
            raise
        # A second one would end what the first asks for.
        install_handler(lambda signum, frame: None)
        print(f"stopped by a signal, and saved; run it again (exit code {COME_AGAIN})", flush=True)
        if options.requeue:
            from grulab.cluster.slurm_queue import requeue_after

            requeue_after(came[0])
        raise ComeAgain(came[0]) from None


def work(
    sweep_dir: Path,
    slice_: Slice,
    slots: int | None = None,
    overrides: Sequence[str] = (),
    folder: str | None = None,
    skip: Sequence[int] = (),
) -> None:
    """Run a slice of a sweep.

    Args:
        sweep_dir: the sweep's folder.
        slice_: which of its jobs.
        slots: number of jobs at the same time; None takes what the machine allows.
        overrides: of Hydra's keys.
        folder: that of ``--config-dir``; the stored one is not followed.
        skip: numbers of jobs to leave out.

    Raises:
        ConfigError: if there is no such sweep, or a stored argument could run code.
        SweepFailedError: if jobs failed.
        Interrupted: after a signal.
    """
    known = _known(sweep_dir)
    refuse_reference("hydra.sweep.dir", sweep_dir)
    flags = [f"{CONFIG_DIR}={folder}"] if folder is not None else []
    replaced = {*map(key_of, [*flags, *overrides]), *(f"hydra.launcher.{name}" for name in SUBMISSION_KEYS)}
    # Those of the run have made the jobs, which sweep.json has.
    needed = [word for word in known.arguments if is_about_hydra(word) or word.startswith(CONFIG_NAME)]
    kept = [word for word in needed if key_of(word) not in replaced]
    refuse_foreign(kept, sweep_dir, [*overrides, "--slice", str(slice_)], "work")
    words = [*flags, "--multirun", *kept, *overrides]
    if _SUBDIR not in map(key_of, words):
        # Clusters ration files. .hydra holds nothing that sweep.json, multirun.yaml and summary.json have not.
        words.append(f"{_SUBDIR}=null")
    words += [f"hydra.sweep.dir={quoted(str(sweep_dir.absolute()))}", f"hydra.sweeper._target_={_SWEEPER}"]
    words += [f"+hydra.sweeper.slice={slice_}", f"+hydra.sweeper.slots={'null' if slots is None else slots}"]
    words += [f"+hydra.sweeper.skip=[{','.join(map(str, skip))}]"]
    try:
        args = parse_arguments(words)
        refuse_flags(args)
        call_hydra(args, words)
    except SweepFailedError as error:
        error.command = f"grulab resume {display_path(sweep_dir)}"
        raise


def _known(sweep_dir: Path) -> manifest.Manifest:
    """Return what sweep.json says, without the jobs.

    Raises:
        ConfigError: if it is not there.
    """
    if not sweep_dir.is_dir():
        raise ConfigError(
            f"{sweep_dir}: no such folder on {platform.node()}; the folder of a sweep has to be where every machine "
            "that works on it sees it"
        )
    known = manifest.read(sweep_dir, ())
    if known is None:
        raise ConfigError(f"{sweep_dir}: holds no {paths.SWEEP}; grulab train -m ... --only-write makes one")
    return known


def _slots(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 0 < int(text) <= 1024:
        raise ConfigError(f"--slots {text}: must be a whole number of jobs, from 1 to 1024")
    return int(text)


def _numbers(text: str) -> list[int]:
    if text and not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise ConfigError(f"--skip {text}: must be numbers of jobs, such as 3,7")
    return [int(number) for number in text.split(",") if number]

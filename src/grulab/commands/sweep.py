"""``grulab train -m``: check the jobs of a sweep, run them and write the report."""

import logging
import signal
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from threading import Thread

from rich.console import Console

from grulab.cluster.slurm import refuse_beside_array
from grulab.commands.hydra_app import call_hydra, claimed_folder, with_config_dir, with_folder
from grulab.config.overrides import key_of
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.full_disk import explained_full_disk
from grulab.run_folder.lock import lock
from grulab.run_folder.metrics_csv import count_rows
from grulab.run_folder.paths import display_path
from grulab.sweep import manifest
from grulab.sweep.check_machine import check_machine_of_jobs
from grulab.sweep.compose_jobs import EXCLUDE, Sweep, compose_sweep
from grulab.sweep.failures import Submitted, SweepFailedError
from grulab.sweep.launcher_settings import LocalSettings
from grulab.sweep.live_table import many
from grulab.sweep.plan_table import print_plan
from grulab.sweep.slurm_settings import SlurmSettings
from grulab.sweep.status import obstacle_in, result_of
from grulab.sweep.stored_arguments import resume_command
from grulab.system.quick_import import quick_import
from grulab.system.signals import Interrupted

_DIR, _WAIT = "hydra.sweep.dir", "hydra.launcher.wait"


def run_sweep(args: Namespace, words: list[str], plan: bool, only_write: bool) -> None:
    """Run or resume a sweep, with its folder locked.

    Args:
        args: the parsed command line.
        words: the words of the command line.
        plan: whether to show the jobs and stop.
        only_write: whether to write sweep.json and stop.

    Raises:
        As :func:`grulab.commands.train.main`.
    """
    sweep = compose_sweep(with_config_dir(args), args.config_name or "config")
    if isinstance(sweep.settings, LocalSettings) and not only_write:
        check_machine_of_jobs(sweep.configs, sweep.settings)
    asked = {key_of(line) for line in args.overrides}
    before = sweep.before
    if before is not None:
        _refuse_earlier_end(sweep, before)
    if sweep.settings is None:
        _refuse_obstacles(sweep)
    if plan:
        print_plan(sweep, Console())
        return
    if before is not None and not only_write and not isinstance(sweep.settings, SlurmSettings | None):
        refuse_beside_array(sweep.folder)
    if before is None and _DIR in asked and manifest.was_lost(sweep.folder, sweep.jobs):
        print(f"note: {paths.SWEEP} is gone, but {display_path(sweep.folder)} holds this sweep's jobs; it goes on")
        before = manifest.new_manifest(_arguments(args), sweep.jobs, sweep.design)
    if before is not None:
        with explained_full_disk(sweep.folder), lock(sweep.folder):
            for line in manifest.what_changed(before):
                print(f"warning: {line}")
            _run_jobs(args, words, sweep, sweep.folder, before, only_write)
        return
    with claimed_folder(_DIR, sweep.folder, args.overrides) as folder:
        before = manifest.new_manifest(_arguments(args), sweep.jobs, sweep.design)
        _run_jobs(args, words, sweep, folder, before, only_write)


def _run_jobs(
    args: Namespace, words: list[str], sweep: Sweep, folder: Path, before: manifest.Manifest, only_write: bool
) -> None:
    """Write sweep.json in a locked folder, run the jobs of the sweep that are not done, and report."""
    manifest.write(folder, manifest.grown(before, _arguments(args), sweep.jobs, sweep.design))
    written = (folder / paths.SWEEP).read_bytes()
    if only_write:
        _tell_how_to_work(sweep, folder, resume_command(folder, _arguments(args)))
        return
    words = with_folder(words, _DIR, folder)
    if sweep.constant and EXCLUDE not in map(key_of, args.overrides):
        words.append(f"{EXCLUDE}=[{','.join(sweep.constant)}]")
    if not isinstance(sweep.settings, LocalSettings | None):
        # The jobs run elsewhere, and this process forks none.
        Thread(target=_import_report, daemon=True).start()
    try:
        call_hydra(args, words)
    except (Interrupted, KeyboardInterrupt, SystemExit) as error:
        if not isinstance(sweep.settings, SlurmSettings):
            print(f"interrupted; go on with  {resume_command(folder, _arguments(args))}", flush=True)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(signal.SIGINT) from None
        raise
    except ConfigError:
        if sweep.before is not None and (folder / paths.SWEEP).read_bytes() == written:
            # A mistake in the command is not part of the sweep.
            manifest.write(folder, sweep.before)
        raise
    except Submitted as told:
        print(told)
        return
    except Exception as error:
        # Jobs may have results although the sweep failed.
        with suppress(ConfigError):
            _report_on(folder)
        if isinstance(error, SweepFailedError):
            error.command = resume_command(folder, _arguments(args))
        raise
    _report_on(folder)


def _tell_how_to_work(sweep: Sweep, folder: Path, command: str) -> None:
    print(f"written  {many(len(sweep.jobs), 'job')} in {display_path(folder / paths.SWEEP)}; none was started")
    if sweep.outlook:
        print(f"note: {sweep.outlook}")
    if sweep.jobs:
        print(f"a slice of them, such as the first of four:  grulab work {display_path(folder)} --slice 0/4")
    print(f"all that is left, what follows from results, and the report:  {command}")


def _refuse_earlier_end(sweep: Sweep, before: manifest.Manifest) -> None:
    """Check that no job has to end earlier than it has got: its result would be that of another number of epochs.

    Raises:
        ConfigError: naming the first that has.
    """
    known = {job.number: job for job in before.jobs}
    for new in sweep.jobs:
        if (old := known.get(new.number)) is None:
            continue
        end = new.config.trainer.max_epochs
        if end < old.config.trainer.max_epochs and (done := count_rows(sweep.folder / new.folder)) > end:
            raise ConfigError(f"trainer.max_epochs={end}: {done} epochs of {new.folder} are done already")


def _refuse_obstacles(sweep: Sweep) -> None:
    """Check the folders of the jobs, which Hydra's other launchers write to without a look; ours does so itself."""
    for job in sweep.jobs:
        folder = sweep.folder / job.folder
        if result_of(folder, job.config) is None and (obstacle := obstacle_in(folder, sweep.folder)):
            raise ConfigError(f"{folder}: {obstacle}")


def _arguments(args: Namespace) -> list[str]:
    """Return the words that start the same sweep from any working directory, without the sweep's folder."""
    flags = [f"--config-name={args.config_name}"] if args.config_name else []
    flags += [f"--config-dir={Path(args.config_dir).resolve()}"] if args.config_dir else []
    # Who resumes waits, or says that he does not.
    return flags + [line for line in args.overrides if key_of(line) not in (_DIR, _WAIT)]


def _report_on(sweep_dir: Path) -> None:
    """Print the leaderboard and write the report of the results so far, also if some jobs failed."""
    known = manifest.read(sweep_dir)
    if known and known.jobs:
        _import_report()
        from grulab.report.sections import report_console
        from grulab.report.sweep_report import write_report

        write_report(sweep_dir, report_console())


def _import_report() -> None:
    # Hydra shows what libraries log, and matplotlib tells of its fonts.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    with quick_import():
        import grulab.report.sections
        import grulab.report.sweep_report  # noqa: F401

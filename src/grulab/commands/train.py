"""``grulab train``: a Hydra application that finds a user's mistakes before Hydra makes a folder."""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from yaml import YAMLError

from grulab.config.compose import EXCLUDE, Sweep, checked, compose_run, compose_sweep
from grulab.config.hydra_errors import config_dir, explain
from grulab.config.schema import Config, ConfigError
from grulab.run_folder.lock import FILE_NAME as OWNER
from grulab.run_folder.lock import own
from grulab.run_folder.paths import make_unused, shown
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.sweep.status import record_failure, result_of
from grulab.system.processes import importing
from grulab.system.signals import Interrupted

_PLAN = "--plan"
_ANYWHERE = ("32-true", "bf16-mixed")

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab train ARGUMENTS``.

    Raises:
        ConfigError: for a user's mistake; nothing has been made then.
        SweepFailedError: when a sweep is at its end and some of its jobs failed.
        Interrupted: if it was asked to stop; everything up to there is saved.
        Exception: what stopped a run.
    """
    words = [word for word in arguments if word != _PLAN]
    args = _parse_arguments(words)
    _refuse_flags(args, plan=_PLAN in arguments)
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        _call_hydra(args, words)
        return
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder")
    extra = [f"hydra.searchpath=[{_quoted(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []
    if args.multirun:
        _sweep(args, words, compose_sweep(args.overrides + extra, args.config_name or "config"), _PLAN in arguments)
    else:
        config, hydra_config = compose_run(args.overrides + extra, args.config_name or "config")
        _check_machine(config)
        if swept := hydra_config.sweeper.get("params"):
            print(
                f"note: this experiment sweeps {', '.join(swept)}; that takes grulab train -m. "
                "Without it, one run is made"
            )
        folder = _claim("hydra.run.dir", Path(hydra_config.run_dir), args.overrides)
        _call_hydra(args, _settled(words, "hydra.run.dir", folder))


def continue_sweep(sweep_dir: Path, overrides: Sequence[str], plan: bool = False) -> None:
    """Run ``grulab resume SWEEP_DIR OVERRIDES``: the sweep's own command once more, in its folder.

    Args:
        sweep_dir: the sweep's folder.
        overrides: changes to its command.
        plan: whether to show the jobs and stop.

    Raises:
        As :func:`main`.
    """
    before = manifest.read(sweep_dir)
    assert before is not None
    if folder := next((line for line in overrides if _key(line) == "hydra.sweep.dir"), None):
        raise ConfigError(f"{folder}: the sweep goes on in {shown(sweep_dir)}; leave it out")
    replaced = {_key(line) for line in overrides}
    kept = [word for word in before.arguments if _key(word) not in replaced]
    main(["--multirun", *([_PLAN] if plan else []), *kept, *overrides, f"hydra.sweep.dir={_quoted(str(sweep_dir))}"])


def run_job(values: DictConfig) -> float:
    """Run one job in the folder that Hydra made for it; return the monitored metric of its best epoch.

    A job of a sweep that is done already is not run again, and one that was begun goes on: whatever the launcher.
    """
    settings = HydraConfig.get()
    run_dir = Path(settings.runtime.output_dir)
    config = checked(values)
    if settings.mode != RunMode.MULTIRUN:
        # Torch is imported here, when everything that can be wrong with the configuration has been found.
        with importing():
            from grulab.training.run import train

        return _score(train(config, run_dir))
    if job := manifest.find(Path(settings.runtime.cwd, settings.sweep.dir), settings.job.num):
        config = job.config
    score = result_of(run_dir, config)
    if score is not None:
        log.info("done before")
        return score
    try:
        with importing():
            from grulab.training.callbacks import checkpointing
            from grulab.training.run import go_on, train

        has_begun = read_summary(run_dir) is not None or (run_dir / checkpointing.FOLDER).is_dir()
        return _score(go_on(config, run_dir) if has_begun else train(config, run_dir))
    except Exception as error:
        # Most errors are in its summary already; not those from before it began, or that kept it from beginning.
        if ((read_summary(run_dir) or {}).get("error") or {}).get("message") != str(error):
            record_failure(run_dir, config, type(error).__name__, str(error))
        # Hydra tells of the first failure alone, and only when all jobs are done.
        log.error("failed  %s in %s: %s", type(error).__name__, shown(run_dir), error)
        raise


def _score(summary: dict[str, Any]) -> float:
    return float(summary["metrics"][summary["monitor"]])


def _sweep(args: Namespace, words: list[str], sweep: Sweep, plan: bool) -> None:
    """Run a sweep, or go on with it, in a folder that is nobody else's meanwhile."""
    for config in sweep.configs:
        if sweep.settings and config.trainer.devices != 1:
            raise ConfigError(
                f"trainer.devices={config.trainer.devices}: in a sweep each job sees one device; "
                f"hydra.launcher.devices={config.trainer.devices} says which there are"
            )
        _check_machine(config)
    if sweep.settings and sweep.settings.devices is not None:
        with importing():
            from grulab.sweep.slots import find_slots

        find_slots(sweep.configs, sweep.settings)
    given = any(_key(line) == "hydra.sweep.dir" for line in args.overrides)
    before = manifest.read(sweep.folder) if given else None
    if before is not None and before.jobs and sweep.jobs:
        manifest.refuse_another_sweep(sweep.folder, before.jobs, sweep.jobs, {_key(line) for line in args.overrides})
    if plan:
        from grulab.sweep.plan import print_plan

        print_plan(sweep, Console())
        return
    if before is None and given and manifest.was_lost(sweep.folder, sweep.jobs):
        print(f"note: {manifest.FILE_NAME} is gone, but {shown(sweep.folder)} holds this sweep's jobs; it goes on")
        before = manifest.new_manifest(_arguments(args), sweep.jobs)
    folder = sweep.folder if before else _claim("hydra.sweep.dir", sweep.folder, args.overrides)
    words = _settled(words, "hydra.sweep.dir", folder)
    with own(folder):
        for line in manifest.what_changed(before) if before else []:
            print(f"warning: {line}")
        if before is None:
            before = manifest.new_manifest(_arguments(args), sweep.jobs)
        manifest.write(folder, replace(before, arguments=_arguments(args), jobs=sweep.jobs or before.jobs))
        if sweep.constant and not any(_key(line) == EXCLUDE for line in args.overrides):
            words.append(f"{EXCLUDE}=[{','.join(sweep.constant)}]")
        try:
            _call_hydra(args, words)
        except (Interrupted, KeyboardInterrupt, SystemExit):
            print(f"interrupted; go on with  grulab resume {shown(folder)}", flush=True)
            raise
        except ConfigError:
            raise
        except Exception:
            # Whatever the sweep failed with, its jobs have results.
            _report_on(folder)
            raise
        _report_on(folder)


def _call_hydra(args: Namespace, words: list[str]) -> None:
    # Hydra wants flags before overrides, and all overrides in one stretch.
    flags = [word for word in words if word not in args.overrides and not word.startswith("hydra.")]
    overrides = [word for word in words if word not in flags]
    sys.argv = ["grulab", *flags, *overrides]
    show_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra would print and exit with 1; our caller decides about both.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(run_job)()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        if show_all:
            raise
        raise ConfigError(explain(error, args.overrides)) from None


def _refuse_flags(args: Namespace, plan: bool) -> None:
    if args.config_path is not None:
        raise ConfigError(f"--config-path {args.config_path}: would replace conf/; --config-dir adds to it")
    if args.experimental_rerun is not None:
        raise ConfigError(
            f"--experimental-rerun {args.experimental_rerun}: a pickle may hold code; name the overrides"
        )
    if args.multirun and (args.cfg or args.info):
        raise ConfigError("--multirun: does not go with --cfg or --info, which show one configuration")
    if plan and not args.multirun:
        raise ConfigError(f"{_PLAN}: shows the jobs of a sweep, which takes -m; --cfg job shows a run")


def _arguments(args: Namespace) -> list[str]:
    """Return what makes the same sweep again from any place, in any folder."""
    flags = [f"--config-name={args.config_name}"] if args.config_name else []
    flags += [f"--config-dir={Path(args.config_dir).resolve()}"] if args.config_dir else []
    return flags + [line for line in args.overrides if _key(line) != "hydra.sweep.dir"]


def _claim(key: str, folder: Path, overrides: list[str]) -> Path:
    """Make the folder, a new one, and return it."""
    try:
        if key not in map(_key, overrides):
            return make_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{key}={folder}: cannot be made ({error.strerror}); name another folder") from None
    # A lock file is what a sweep leaves that was killed before it had begun.
    if any(path.name != OWNER for path in folder.iterdir()):
        raise ConfigError(f"{key}={folder}: is not empty; name a folder that is new or empty")
    return folder


def _settled(words: list[str], key: str, folder: Path) -> list[str]:
    """Return the words with the folder as it is now: a time in its name would be another when Hydra comes to it."""
    return [*(word for word in words if _key(word) != key), f"{key}={_quoted(str(folder))}"]


def _report_on(sweep_dir: Path) -> None:
    """Print the leaderboard of what is there, also of a sweep with failures."""
    known = manifest.read(sweep_dir)
    if known and known.jobs:
        from grulab.report.sections import report_console
        from grulab.report.sweep_report import report

        report(sweep_dir, report_console())


def _key(line: str) -> str:
    return line.lstrip("+~").partition("=")[0]


def _quoted(value: str) -> str:
    """Return a value that Hydra takes as it is, whatever it holds."""
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


def _check_machine(config: Config) -> None:
    trainer = config.trainer
    # Only these need torch to be answered.
    if trainer.accelerator not in ("auto", "cpu") or trainer.devices != 1 or trainer.precision not in _ANYWHERE:
        from grulab.training.device import find_accelerator

        find_accelerator(config)


def _parse_arguments(arguments: list[str]) -> Namespace:
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; grulab train --help shows what there is")

    parser.error = refuse  # type: ignore[method-assign]
    # Unlike Hydra, take flags and overrides in any order.
    return parser.parse_intermixed_args(arguments)

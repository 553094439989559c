"""``grulab train``: a Hydra application that finds a user's mistakes before Hydra makes a folder."""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from yaml import YAMLError

from grulab.composition import checked, compose_run, compose_sweep
from grulab.config import Config, ConfigError
from grulab.folders import make_unused, shown
from grulab.mistakes import config_dir, explain

_ANYWHERE = ("32-true", "bf16-mixed")

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab train ARGUMENTS``.

    Raises:
        ConfigError: for a user's mistake; nothing has been made then.
        Exception: what stopped the run, or the first job of a sweep that failed, when the others are done.
    """
    arguments = list(arguments)
    args = _parse_arguments(arguments)
    if args.config_path is not None:
        raise ConfigError(f"--config-path {args.config_path}: would replace conf/; --config-dir adds to it")
    if args.experimental_rerun is not None:
        raise ConfigError(
            f"--experimental-rerun {args.experimental_rerun}: a pickle may hold code; name the overrides"
        )
    if args.multirun and (args.cfg or args.info):
        raise ConfigError("--multirun: does not go with --cfg or --info, which show one configuration")
    only_shows = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    if not only_shows:
        folder, claims = _check(args)
        arguments += claims
    # Hydra wants flags before overrides, and all overrides in one stretch.
    flags = [word for word in arguments if word not in args.overrides and not word.startswith("hydra.")]
    overrides = [word for word in arguments if word not in flags]
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
    finally:
        if args.multirun and not only_shows:
            _report_on(folder)


def run_job(values: DictConfig) -> float:
    """Run one job in the folder that Hydra made for it; return the monitored metric of its best epoch."""
    # Torch is imported here, when everything that can be wrong with the configuration has been found.
    from grulab.run import train

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        summary = train(checked(values), run_dir)
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            # Hydra tells of the first failure alone, and only when all jobs are done.
            log.error("failed  %s in %s: %s", type(error).__name__, shown(run_dir), error)
        raise
    return float(summary["metrics"][summary["monitor"]])


def _check(args: Namespace) -> tuple[Path, list[str]]:
    """Check everything about the run or sweep; make its folder, and return it and the overrides that say so."""
    name = args.config_name or "config"
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder")
    extra = [f"hydra.searchpath=[{_quoted(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []
    given = [line.lstrip("+").partition("=")[0] for line in args.overrides]
    if args.multirun:
        sweep = compose_sweep(args.overrides + extra, name)
        for config in sweep.configs:
            _check_machine(config)
        exclude = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sweep.constant)}]"
        folder, claims = _claim("hydra.sweep.dir", sweep.folder, given)
        return folder, [exclude, *claims]
    config, hydra_config = compose_run(args.overrides + extra, name)
    _check_machine(config)
    if hydra_config.sweeper.params:
        swept = ", ".join(hydra_config.sweeper.params)
        print(f"note: this experiment sweeps {swept}; that takes grulab train -m. Without it, one run is made")
    return _claim("hydra.run.dir", Path(hydra_config.run.dir), given)


def _claim(key: str, folder: Path, given: list[str]) -> tuple[Path, list[str]]:
    """Make the folder, a new one; return it, and the override that tells Hydra where it does not know."""
    try:
        if key not in given:
            unused = make_unused(folder)
            return unused, [f"{key}={_quoted(str(unused))}"]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{key}={folder}: cannot be made ({error.strerror}); name another folder") from None
    if any(folder.iterdir()):
        raise ConfigError(f"{key}={folder}: is not empty; name a folder that is new or empty")
    return folder, []


def _report_on(sweep_dir: Path) -> None:
    """Print the leaderboard of what is there, also of a sweep that failed or was stopped."""
    if any(sweep_dir.glob("*/summary.json")):
        from grulab.report.sweep import report

        report(sweep_dir, Console())


def _quoted(value: str) -> str:
    """Return a value that Hydra takes as it is, whatever it holds."""
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


def _check_machine(config: Config) -> None:
    trainer = config.trainer
    # Only these need torch to be answered.
    if trainer.accelerator not in ("auto", "cpu") or trainer.devices != 1 or trainer.precision not in _ANYWHERE:
        from grulab.accelerator import find_accelerator

        find_accelerator(config)


def _parse_arguments(arguments: list[str]) -> Namespace:
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; grulab train --help shows what there is")

    parser.error = refuse  # type: ignore[method-assign]
    # Unlike Hydra, take flags and overrides in any order.
    return parser.parse_intermixed_args(arguments)

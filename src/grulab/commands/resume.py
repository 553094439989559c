"""``grulab resume``: continue a stopped run or sweep from the contents of its folder."""

import logging.config
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from grulab.commands.argument_parser import ArgumentParser
from grulab.config.conf_dir import config_dir
from grulab.config.overrides import key_of, quoted, refuse_reference
from grulab.config.same_run import MAY_CHANGE
from grulab.config_error import ConfigError
from grulab.kernels.backend import refuse_missing_kernels
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.run_folder.stored_config import resumed_config
from grulab.sweep.stored_arguments import CONFIG_DIR, refuse_foreign
from grulab.system.quick_import import quick_import
from grulab.system.regular_file import refuse_odd_kinds


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab resume ARGUMENTS``.

    Raises:
        ConfigError: if an argument is invalid.
    """
    parser = ArgumentParser(
        prog="grulab resume",
        description="Go on with a run or a sweep where it stopped, in the same folder and on the same curves.",
        epilog=(
            "A sweep grows with more values of its keys: seed='range(10)'. Of a run, overrides may change "
            f"{', '.join(sorted(MAY_CHANGE))}: what else changes makes another run."
        ),
    )
    parser.add_argument("run_dir", metavar="DIR", help="the folder of a run or a sweep")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="such as trainer.max_epochs=50")
    parser.add_argument(CONFIG_DIR, metavar="FOLDER", help="the one that the sweep was begun with")
    parser.add_argument("--plan", action="store_true", help="show where a sweep's jobs stand, and start nothing")
    parser.add_argument("--only-write", action="store_true", help="write what the sweep grows by, and start nothing")
    options = parser.parse_intermixed_args(arguments)
    run_dir = Path(options.run_dir)
    # A link to nothing is a sweep's file too, and is named as such.
    if os.path.lexists(run_dir / paths.SWEEP):
        asked = ["--plan"] * options.plan + ["--only-write"] * options.only_write
        continue_sweep(run_dir, options.overrides, options.config_dir, asked)
        return
    if options.plan:
        raise ConfigError(f"--plan: shows the jobs of a sweep, and {run_dir} is no sweep's folder")
    if options.only_write:
        raise ConfigError(f"--only-write: is of sweeps, and {run_dir} is no sweep's folder")
    if options.config_dir is not None:
        raise ConfigError(f"{CONFIG_DIR} {options.config_dir}: is not needed to resume a run; leave it out")
    continue_run(run_dir, options.overrides)


def continue_run(run_dir: Path, overrides: Sequence[str]) -> None:
    """Resume a stopped run, with the same logging as ``grulab train``.

    Raises:
        As :func:`grulab.resume`.
    """
    config = resumed_config(run_dir, overrides)
    refuse_missing_kernels(config)
    refuse_odd_kinds([run_dir / paths.RUN_LOG], [])
    try:
        _log_to(run_dir)
    except (OSError, ValueError) as error:
        # logging.config wraps the error of the file handler.
        raise ConfigError(f"{run_dir}: run.log cannot be written ({error.__cause__ or error})") from None
    with quick_import():
        from grulab.training.resume import resume_run

    resume_run(config, run_dir)


def continue_sweep(
    sweep_dir: Path, overrides: Sequence[str], folder: str | None = None, asked: Sequence[str] = ()
) -> None:
    """Resume a stopped sweep: run its stored command again in its folder.

    Args:
        sweep_dir: the sweep's folder.
        overrides: changes to the stored command.
        folder: that of ``--config-dir``; the stored one is not followed.
        asked: ``--plan`` or ``--only-write``, which start nothing.

    Raises:
        ConfigError: if a stored argument could run code.
        As :func:`grulab.commands.train.main`.
    """
    from grulab.commands import train
    from grulab.sweep import manifest

    before = manifest.read(sweep_dir)
    assert before is not None
    if own := next((line for line in overrides if key_of(line) == "hydra.sweep.dir"), None):
        raise ConfigError(f"{own}: the sweep goes on in {display_path(sweep_dir)}; leave it out")
    refuse_reference("hydra.sweep.dir", sweep_dir)
    for line in overrides:
        is_search = before.design["kind"] == "search"
        if key_of(line) == "hydra/sweeper" and before.jobs and is_search != (line.partition("=")[2] == "optuna"):
            raise ConfigError(
                f"{line}: the sweep in {display_path(sweep_dir)} is {'a' if is_search else 'no'} search, and stays "
                "what it is; leave it out, or begin another one with grulab train -m"
            )
    flags = [f"{CONFIG_DIR}={folder}"] if folder is not None else []
    replaced = {key_of(line) for line in [*flags, *overrides]}
    kept = [word for word in before.arguments if key_of(word) not in replaced]
    if "hydra/launcher" in replaced:
        # The settings of another launcher are not those of this one.
        kept = [word for word in kept if not key_of(word).startswith("hydra.launcher.")]
    refuse_foreign(kept, sweep_dir, overrides)
    flags += ["--multirun", *asked]
    train.main([*flags, *kept, *overrides, f"hydra.sweep.dir={quoted(str(sweep_dir))}"])


def _log_to(run_dir: Path) -> None:
    """Configure logging as in ``grulab train``, to the run.log in this folder."""
    settings = OmegaConf.load(config_dir() / "hydra" / "job_logging" / "grulab.yaml")
    values = cast(dict[str, Any], OmegaConf.to_container(settings))
    values["handlers"]["file"]["filename"] = str(run_dir / paths.RUN_LOG)
    logging.config.dictConfig(values)

"""The Hydra application behind ``grulab train``, with checks of the input before Hydra creates a folder."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from grulab.config.conf_dir import config_dir
from grulab.config.hydra_errors import explain
from grulab.config.overrides import key_of, quoted
from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.internals.hydra import get_args_parser
from grulab.kernels.backend import refuse_missing_kernels
from grulab.run_folder import paths
from grulab.run_folder.paths import make_unused
from grulab.sweep.run_job import run_job
from grulab.tasks.registry import build_task

# The precisions that every device supports.
_ANYWHERE = ("32-true", "bf16-mixed")


def parse_arguments(words: Sequence[str]) -> Namespace:
    """Parse Hydra's flags and the overrides; unlike Hydra, accept them in any order.

    Raises:
        ConfigError: if a flag is unknown.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; grulab train --help shows what there is")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(words)


def refuse_flags(args: Namespace) -> None:
    """Reject the flags of Hydra that grulab does not support.

    Raises:
        ConfigError: if there is such a flag; the message names the flag and a remedy.
    """
    if args.config_path is not None:
        raise ConfigError(f"--config-path {args.config_path}: would replace conf/; --config-dir adds to it")
    if args.experimental_rerun is not None:
        raise ConfigError(
            f"--experimental-rerun {args.experimental_rerun}: a pickle may hold code; name the overrides"
        )
    if args.multirun and (args.cfg or args.info):
        raise ConfigError("--multirun: does not go with --cfg or --info, which show one configuration")
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder")


def with_config_dir(args: Namespace) -> list[str]:
    """Return the overrides, with the folder of ``--config-dir`` as Hydra's search path."""
    if not args.config_dir:
        return list(args.overrides)
    folder = quoted(f"file://{Path(args.config_dir).resolve()}")
    return [*args.overrides, f"hydra.searchpath=[{folder}]"]


def call_hydra(args: Namespace, words: Sequence[str]) -> None:
    """Run the job, or all jobs of a sweep, with Hydra.

    Args:
        args: the parsed command line.
        words: the words of the command line to pass to Hydra.

    Raises:
        ConfigError: for Hydra's own errors.
    """
    # Hydra requires the flags before the overrides, and the overrides in one block.
    flags = [word for word in words if word not in args.overrides and not word.startswith("hydra.")]
    overrides = [word for word in words if word not in flags]
    sys.argv = ["grulab", *flags, *overrides]
    show_all = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Without this Hydra prints the error and exits with 1; the caller of this function handles both.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(run_job)()
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        if show_all:
            raise
        raise ConfigError(explain(error, args.overrides)) from None


def check_machine(config: Config) -> None:
    """Check that this machine, which executes the run, has its data, device, precision and kernels.

    Raises:
        ConfigError: if one of them is missing.
    """
    build_task(config.data)
    refuse_missing_kernels(config)
    trainer = config.trainer
    # Only these settings need torch for the check.
    if trainer.accelerator not in ("auto", "cpu") or trainer.devices != 1 or trainer.precision not in _ANYWHERE:
        from grulab.training.device import find_accelerator

        find_accelerator(config)


def make_folder(key: str, folder: Path, overrides: Sequence[str]) -> Path:
    """Create the folder of a new run or sweep and return its path.

    Args:
        key: the configuration key of the folder, such as ``hydra.run.dir``.
        folder: the path; ``-2``, ``-3`` ... is appended if it exists.
        overrides: the user's overrides; a folder that they set is not renamed.

    Raises:
        ConfigError: if the folder cannot be created or is not empty.
    """
    try:
        if key not in map(key_of, overrides):
            return make_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{key}={folder}: cannot be made ({error.strerror}); name another folder") from None
    # A sweep that was killed before it began leaves a lock file.
    if any(path.name != paths.LOCK for path in folder.iterdir()):
        raise ConfigError(f"{key}={folder}: is not empty; name a folder that is new or empty")
    return folder


def with_folder(words: Sequence[str], key: str, folder: Path) -> list[str]:
    """Return the words with a fixed folder: Hydra would resolve a time in the folder's name again, to a later one."""
    return [*(word for word in words if key_of(word) != key), f"{key}={quoted(str(folder))}"]

"""The Hydra application behind ``grulab train``, with checks of the input before Hydra creates a folder."""

import os
import shutil
import sys
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper

from grulab.config.conf_dir import config_dir
from grulab.config.hydra_errors import explain
from grulab.config.overrides import key_of, quoted, refuse_reference
from grulab.config.yaml_files import refuse_odd_yaml
from grulab.config_error import ConfigError
from grulab.internals.hydra import get_args_parser, raise_errors_silently
from grulab.run_folder import paths
from grulab.run_folder.full_disk import DiskFullError, explained_full_disk
from grulab.run_folder.lock import lock
from grulab.run_folder.paths import make_unused
from grulab.sweep.run_job import run_job
from grulab.system.atomic import temporary_of

_COMPLETIONS = (["install"], ["uninstall"], ["query"])
# What Hydra and grulab write into a folder before the run, or the first job of the sweep, begins.
_WRITTEN_BEFORE_A_RUN = {
    paths.LOCK,
    paths.SWEEP,
    temporary_of(Path(paths.SWEEP)).name,
    paths.MULTIRUN,
    paths.RUN_LOG,
    ".hydra",
}


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
    for flag, value in (("--config-name", args.config_name), ("--config-dir", args.config_dir)):
        if value == "":
            raise ConfigError(f"{flag}=: is empty; leave it out, or name one")
    if mode := next((line for line in args.overrides if key_of(line) == "hydra.mode"), None):
        raise ConfigError(f"{mode}: leave it out; -m makes a sweep")
    if args.shell_completion and [key_of(line) for line in args.overrides] not in _COMPLETIONS:
        raise ConfigError(f"-sc {' '.join(args.overrides)}: write install=bash, uninstall=bash or query=bash")
    if args.resolve and not (args.cfg or args.help):
        raise ConfigError("--resolve: has no effect on its own; it goes with --cfg job or --help")
    if args.multirun and (args.cfg or args.info):
        raise ConfigError("--multirun: does not go with --cfg or --info, which show one configuration")
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: no such folder")
    for folder in (config_dir(), args.config_dir):
        if folder is not None:
            refuse_odd_yaml(Path(folder))


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
    raise_errors_silently()
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(run_job)()
    except Exception as error:
        # Such as a full disk; an error of Hydra may count as an OSError too.
        is_no_mistake = isinstance(error, ConfigError | OSError) and not isinstance(error, HydraException)
        if show_all or is_no_mistake or _has_begun(error):
            raise
        raise ConfigError(explain(error, args.overrides)) from error


def _has_begun(error: Exception) -> bool:
    """Return whether an error comes from the run or the sweep, and not from Hydra before it called them."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(
        frame.f_code is run_job.__code__ or isinstance(frame.f_locals.get("self"), Sweeper) for frame in frames
    )


@contextmanager
def claimed_folder(key: str, folder: Path, overrides: Sequence[str]) -> Iterator[Path]:
    """Create and lock the folder of a new run or sweep; if a mistake comes to light before it begins, remove it.

    Args:
        key: the configuration key of the folder, such as ``hydra.run.dir``.
        folder: the path; ``-2``, ``-3`` ... is appended if it exists.
        overrides: the user's overrides; a folder that they set is not renamed.

    Yields:
        The path of the folder.

    Raises:
        ConfigError: if the folder cannot be created, is not empty, or is in use.
    """
    refuse_reference(key, folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    made = _make_folder(key, folder, overrides)
    is_new = made != folder or folder in missing
    try:
        with explained_full_disk(made), lock(made):
            yield made
    except (ConfigError, DiskFullError, KeyboardInterrupt, SystemExit) as error:
        harmless = _WRITTEN_BEFORE_A_RUN
        if isinstance(error, DiskFullError):
            harmless = {paths.LOCK}
        elif not isinstance(error, ConfigError):
            # A sweep that was interrupted can go on.
            harmless = harmless - {paths.SWEEP}
        if is_new and not {path.name for path in made.iterdir()} - harmless:
            shutil.rmtree(made)
            _remove_empty(missing)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _make_folder(key: str, folder: Path, overrides: Sequence[str]) -> Path:
    try:
        if key not in map(key_of, overrides):
            return make_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{key}={folder}: cannot be made ({error.strerror}); name another folder") from None
    names = {path.name for path in folder.iterdir()}
    # A run that was killed before it began leaves its lock file and what Hydra had written.
    was_claimed = paths.LOCK in names and names <= _WRITTEN_BEFORE_A_RUN - {paths.SWEEP}
    if names and not was_claimed:
        raise ConfigError(f"{key}={folder}: is not empty; name a folder that is new or empty")
    return folder


def with_folder(words: Sequence[str], key: str, folder: Path) -> list[str]:
    """Return the words with a fixed folder: Hydra would resolve a time in the folder's name again, to a later one."""
    return [*(word for word in words if key_of(word) != key), f"{key}={quoted(str(folder))}"]

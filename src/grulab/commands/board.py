"""``grulab board``: TensorBoard on the answer, with short names of runs."""

import os
import shutil
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from grulab.commands.argument_parser import ArgumentParser
from grulab.config.same_run import flatten
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.sweep import manifest
from grulab.sweep.rungs import OF_RUNGS
from grulab.system.signals import Interrupted, handle_signals

# TensorBoard shows these cards above all others, and no smoothing, which would invent values.
_QUERY = (
    "?pinnedCards=%5B%7B%22plugin%22%3A%22scalars%22%2C%22tag%22%3A%22val%2Faccuracy%22%7D%2C"
    "%7B%22plugin%22%3A%22scalars%22%2C%22tag%22%3A%22val%2Floss%22%7D%5D&smoothing=0"
)
_SECONDS_BETWEEN_LOOKS = 5.0


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab board ARGUMENTS``, until Ctrl-C.

    Raises:
        ConfigError: if an argument is invalid, or there is nothing to show.
    """
    parser = ArgumentParser(
        prog="grulab board",
        description=__doc__,
        epilog="Runs that start later appear too. Without DIR, the newest sweep or run in outputs/ is shown.",
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", help="of a sweep, a run, or many of them")
    parser.add_argument("--port", type=int, default=None, help="default: 6006, or the next one that is free")
    parser.add_argument("--host", default="localhost", help="0.0.0.0 serves other machines too (default: localhost)")
    options = parser.parse_args(arguments)
    if options.port is not None and not 0 < options.port < 2**16:
        raise ConfigError(f"--port {options.port}: choose from 1 to 65535")
    folder = _newest() if options.folder is None else Path(options.folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: {'is a file, and no folder' if folder.exists() else 'no such folder'}")
    with suppress(Interrupted), handle_signals(_stop), _shown_folder(folder) as (shown, links):
        _serve(folder, shown, links, options.host, options.port)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)


def _newest() -> Path:
    """Return the folder of the newest sweep or run.

    Raises:
        ConfigError: if there is none.
    """
    files = [*paths.OUTPUTS.glob(f"sweeps/*/*/{paths.SWEEP}"), *paths.OUTPUTS.glob(f"runs/*/*/{paths.SUMMARY}")]
    times = {}
    for file in files:
        with suppress(OSError):
            times[file.parent] = file.stat().st_mtime
    if not times:
        raise ConfigError(
            f"{paths.OUTPUTS}/: holds no sweep and no run; begin one with grulab train, or name a folder"
        )
    return max(times, key=lambda path: times[path])


@contextmanager
def _shown_folder(folder: Path) -> Iterator[tuple[Path, "_Links | None"]]:
    """Give the folder that TensorBoard reads: for a sweep, one of links with short names."""
    if not os.path.lexists(folder / paths.SWEEP):
        yield folder, None
        return
    temporary = Path(tempfile.mkdtemp(prefix="grulab-board-"))
    try:
        links = _Links(folder.resolve(), temporary)
        for short, key in links.refresh().items():
            print(f"{short:6} {key}")
        yield temporary, links
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Links:
    """Links to the event files of a sweep's jobs, which may be added while it runs."""

    def __init__(self, sweep_dir: Path, folder: Path) -> None:
        self._sweep_dir, self._folder = sweep_dir, folder

    def refresh(self) -> dict[str, str]:
        """Make the links that are missing; return what the abbreviations in their names stand for."""
        from grulab.report.short_names import short_names

        known = manifest.read(self._sweep_dir)
        jobs = known.jobs if known else []
        values = [flatten(job.config.to_dict()) for job in jobs]
        keys = list(dict.fromkeys(key for job in values for key in job))
        left_out = OF_RUNGS if known and known.design["rungs"] else set()
        differing = [key for key in keys if key not in left_out and len({repr(job.get(key)) for job in values}) > 1]
        names, short = short_names([{key: job[key] for key in differing if key in job} for job in values])
        targets = {
            name: self._sweep_dir / job.folder / paths.TENSORBOARD for name, job in zip(names, jobs, strict=True)
        }
        means = self._sweep_dir / paths.MEANS
        if means.is_dir():
            targets |= {f"mean {path.name}": path for path in sorted(means.iterdir()) if path.is_dir()}
        for name in {path.name for path in self._folder.iterdir()} - targets.keys():
            # With more jobs, more differs between them.
            (self._folder / name).unlink()
        for name, target in targets.items():
            with suppress(FileExistsError):
                (self._folder / name).symlink_to(target)
        return short


def _serve(folder: Path, shown: Path, links: _Links | None, host: str, port: int | None) -> None:
    # It takes a second to import, and a mistake is told before.
    from tensorboard import program

    server = program.TensorBoard()
    words = ["tensorboard", "--logdir", str(shown), "--reload_interval", "5", "--load_fast", "false", "--host", host]
    server.configure(argv=[*words, *(["--port", str(port)] if port else [])])
    try:
        address = server.launch() + _QUERY
    except program.TensorBoardServerException as error:
        where = f"--port {port}" if port else f"--host {host}"
        raise ConfigError(f"{where}: {error}") from None
    print(f"{display_path(folder)} at {address}\nCtrl-C ends it", flush=True)
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(address)
    while True:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        if links is not None:
            with suppress(ConfigError):
                links.refresh()

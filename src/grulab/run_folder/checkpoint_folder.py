"""The checkpoints of a run: best.ckpt, last.ckpt and the one before, put in place so that a crash loses none."""

import logging
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any

from grulab.config.same_run import what_differs
from grulab.run_folder.checkpoint_file import KEY, DamagedCheckpointError, load
from grulab.run_folder.paths import BEST, LAST

# The one that was last.ckpt before: if the disk spoils the newest, it is the newest good one.
PREVIOUS = "last-previous.ckpt"
DAMAGED = "last-damaged"

log = logging.getLogger(__name__)


def put_in_place(temporary: Path, is_best: bool, is_last: bool, is_urgent: bool) -> None:
    """Give a file that holds a new state its names, the last one last.

    A crash between them leaves a best.ckpt that is newer than last.ckpt: going on from last makes it again. The
    other way round the new best would be lost.

    A killed process loses nothing that it has written. A power cut may, for waiting until each file is on the disk
    takes from milliseconds to seconds; the checksum finds a spoilt file, and there is the one before.

    Args:
        temporary: the file, in the folder of the checkpoints.
        is_best: whether it becomes best.ckpt.
        is_last: whether it becomes last.ckpt.
        is_urgent: whether the machine may be switched off soon: then this waits for the disk.
    """
    folder = temporary.parent
    if is_urgent:
        _sync(temporary)
    if is_best:
        # A file of its own: a disk that spoils one of them leaves the other.
        _copy(temporary, folder / BEST)
    if is_last:
        # Between the two renames there is no last.ckpt; a resume then takes the one before.
        if (folder / LAST).exists():
            _rename(folder / LAST, folder / PREVIOUS)
        _rename(temporary, folder / LAST)
    else:
        temporary.unlink()
    if is_urgent:
        _sync(folder)


def newest_good(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return last.ckpt and its content; where it is not the newest whole state, put that in its place.

    best.ckpt is a whole state too, and newer than last.ckpt if a crash came between the two.

    Returns:
        None if nothing was saved.

    Raises:
        DamagedCheckpointError: if no state is whole.
        UnsafeCheckpointError: if one asks for code.
    """
    states, damages = _states(folder)
    if not states:
        if damages:
            message = "; ".join(map(str, damages.values()))
            raise DamagedCheckpointError(f"{message}: put back a good copy, or begin anew with grulab train")
        return None
    # A file of another run that lies there is not this one's newest state.
    first = next(iter(states.values()))
    states = {name: state for name, state in states.items() if _is_same_run(state, first)}
    newest = max(states, key=lambda name: (states[name][KEY]["epochs"], states[name][KEY]["batches"]))
    if LAST in damages:
        names = (folder / f"{DAMAGED}{number or ''}.ckpt" for number in count())
        aside = next(name for name in names if not name.exists())
        (folder / LAST).replace(aside)
        log.warning("%s; it is %s now, and %s is used", damages[LAST], aside.name, newest)
    if newest != LAST:
        _copy(folder / newest, folder / LAST)
    return folder / LAST, states[newest]


def check_best(folder: Path, content: dict[str, Any], best_epoch: int | None) -> None:
    """Make sure that the best epoch of a state can be tested in the end.

    Args:
        folder: of the checkpoints.
        content: the state.
        best_epoch: of the state; None before the first.

    Raises:
        DamagedCheckpointError: if no file holds it.
    """
    if best_epoch is None:
        return
    states, damages = _states(folder)
    holders = [
        name
        for name, state in states.items()
        if _is_same_run(state, content) and (state[KEY]["epochs"], state[KEY]["batches"]) == (best_epoch, 0)
    ]
    if BEST not in holders:
        if not holders:
            cause = damages.get(BEST) or f"{folder / BEST}: is missing, or of another run or epoch"
            raise DamagedCheckpointError(
                f"{cause}: put back the one of epoch {best_epoch}, which no other file holds"
            )
        _copy(folder / holders[0], folder / BEST)


def _states(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, DamagedCheckpointError]]:
    """Return the content of every whole state, last.ckpt first, and what is wrong with the others."""
    states, damages = {}, {}
    for name in (LAST, PREVIOUS, BEST):
        try:
            states[name] = load(folder / name)
        except FileNotFoundError:
            continue
        except DamagedCheckpointError as error:
            damages[name] = error
    return states, damages


def _is_same_run(state: dict[str, Any], other: dict[str, Any]) -> bool:
    return not what_differs(state[KEY]["config"], other[KEY]["config"])


def _copy(path: Path, name: Path) -> None:
    temporary = path.with_name(".copying.ckpt")
    shutil.copyfile(path, temporary)
    _rename(temporary, name)


def _rename(path: Path, name: Path) -> None:
    path.replace(name)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

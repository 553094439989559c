"""The checkpoints of a run: best.ckpt, last.ckpt and last-previous.ckpt, replaced so that a crash loses none."""

import logging
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from grulab.config.same_run import what_differs
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError
from grulab.run_folder.checkpoint_file import KEY, load
from grulab.run_folder.paths import BEST, LAST, PREVIOUS
from grulab.system.regular_file import create

DAMAGED = "last-damaged"

log = logging.getLogger(__name__)


# Returns the content of a checkpoint; raises as :func:`load`, also if it is not as its run writes it.
Load = Callable[[Path], dict[str, Any]]


def put_in_place(temporary: Path, is_best: bool, is_last: bool, is_urgent: bool) -> None:
    """Move a new checkpoint from its temporary file to best.ckpt, then to last.ckpt.

    A crash in between leaves a best.ckpt that is newer than last.ckpt: a run that resumes from last.ckpt writes it
    again. In the other order the new best.ckpt would be lost.

    A killed process loses nothing that it has written. A power cut may damage a file, because waiting until each file
    is on disk would take from milliseconds to seconds; the checksum detects a damaged file, and last-previous.ckpt
    remains.

    Args:
        temporary: the file of the new checkpoint, in the checkpoint folder.
        is_best: whether it becomes best.ckpt.
        is_last: whether it becomes last.ckpt.
        is_urgent: whether to wait until the files are on disk, because the machine may be switched off soon.
    """
    folder = temporary.parent
    if is_urgent:
        _sync(temporary)
    if is_best:
        # A copy, not a link: if the disk damages one file, the other remains.
        _copy(temporary, folder / BEST)
    if is_last:
        # Between the two renames there is no last.ckpt; a resume then uses last-previous.ckpt.
        if (folder / LAST).exists():
            _rename(folder / LAST, folder / PREVIOUS)
        _rename(temporary, folder / LAST)
    else:
        temporary.unlink()
    if is_urgent:
        _sync(folder)


def newest_good(folder: Path, load: Load = load) -> tuple[Path, dict[str, Any]] | None:
    """Make last.ckpt the newest undamaged checkpoint, and return its path and content.

    best.ckpt is a complete checkpoint too, and is newer than last.ckpt after a crash between the two writes.

    Returns:
        None if nothing was saved.

    Raises:
        DamagedCheckpointError: if every checkpoint is damaged.
        UnsafeCheckpointError: if a checkpoint refers to code.
    """
    states, damages = _states(folder, load)
    if not states:
        if damages:
            message = "; ".join(map(str, damages.values()))
            raise DamagedCheckpointError(f"{message}: put back a good copy, or begin anew with grulab train")
        return None
    # A checkpoint of another run in this folder does not count, even if it is newer.
    first = next(iter(states.values()))
    states = {name: state for name, state in states.items() if state is first or _is_same_run(state, first)}
    newest = max(states, key=lambda name: (states[name][KEY]["epochs"], states[name][KEY]["batches"]))
    if LAST in damages:
        names = (folder / f"{DAMAGED}{number or ''}.ckpt" for number in count())
        aside = next(name for name in names if not name.exists())
        (folder / LAST).replace(aside)
        log.warning("%s; it is %s now, and %s is used", damages[LAST], aside.name, newest)
    if newest != LAST:
        _copy(folder / newest, folder / LAST)
    return folder / LAST, states[newest]


def check_best(folder: Path, content: dict[str, Any], best_epoch: int | None, load: Load = load) -> None:
    """Make sure that best.ckpt holds the best epoch, which is tested at the end of the run.

    Args:
        folder: the checkpoint folder.
        content: the content of the checkpoint from which the run resumes.
        best_epoch: the best epoch in that checkpoint; None before the end of the first epoch.
        load: how to load a checkpoint.

    Raises:
        DamagedCheckpointError: if no file holds the best epoch.
    """
    if best_epoch is None:
        return
    states, damages = _states(folder, load)
    holders = [
        name
        for name, state in states.items()
        if _is_same_run(state, content) and (state[KEY]["epochs"], state[KEY]["batches"]) == (best_epoch, 0)
    ]
    if BEST not in holders:
        if not holders:
            cause = damages.get(BEST) or f"{folder / BEST}: is missing, or of another run or epoch"
            raise DamagedCheckpointError(
                f"{cause}: put back the one of epoch {best_epoch}, which no other file holds, or begin anew with "
                "grulab train"
            )
        _copy(folder / holders[0], folder / BEST)


def _states(folder: Path, load: Load) -> tuple[dict[str, dict[str, Any]], dict[str, DamagedCheckpointError]]:
    """Return the content of every undamaged checkpoint, last.ckpt first, and the errors of the damaged ones."""
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
    with path.open("rb") as source, create(temporary) as copy:
        shutil.copyfileobj(source, copy)
    _rename(temporary, name)


def _rename(path: Path, name: Path) -> None:
    path.replace(name)


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""``grulab trace``: show a trained GRU's data flow, its training by epochs, and one prediction step by step."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from grulab.commands.argument_parser import ArgumentParser
from grulab.commands.checkpoint_argument import checked_checkpoint
from grulab.run_folder import paths
from grulab.run_folder.full_disk import explained_full_disk
from grulab.run_folder.paths import display_path
from grulab.run_folder.stored_config import parse_stored
from grulab.run_folder.summary import read_summary
from grulab.system.quick_import import quick_import
from grulab.tasks.base import refuse_no_sequence
from grulab.tasks.registry import build_task


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab trace ARGUMENTS``.

    Raises:
        ConfigError: if an argument is invalid.
    """
    parser = ArgumentParser(prog="grulab trace", description=__doc__)
    parser.add_argument(
        "path", metavar="DIR_OR_CKPT", help="a run's folder (its best checkpoint is taken) or a .ckpt"
    )
    parser.add_argument(
        "--sequence", type=int, default=0, metavar="N", help="which test sequence, from 0 (default 0)"
    )
    options = parser.parse_args(arguments)
    _check_before_import(options.path, options.sequence)
    # This module imports torch.
    with quick_import():
        from grulab.report.trace import trace

    with explained_full_disk(Path(options.path), f"grulab trace {display_path(Path(options.path))}"):
        folder = trace(options.path, options.sequence, Console())
    print(f"\nfolder  {display_path(folder)}")


def _check_before_import(path: str, sequence: int) -> None:
    """Find the mistakes that can be found without torch, which takes seconds to import.

    Raises:
        ConfigError: if there is no checkpoint, it is damaged, or its run has no such test sequence.
    """
    folder = checked_checkpoint(path).parent
    run_dir = folder.parent
    summary = read_summary(run_dir)
    if summary is not None and folder.name == paths.CHECKPOINTS:
        config = parse_stored(summary["config"], run_dir / paths.SUMMARY)
        refuse_no_sequence(build_task(config.data), sequence)

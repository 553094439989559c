"""``grulab trace``: show a trained GRU's data flow, its training by epochs, and one prediction step by step."""

from collections.abc import Sequence

from rich.console import Console

from grulab.commands.argument_parser import ArgumentParser
from grulab.run_folder.paths import display_path
from grulab.system.quick_import import quick_import


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
    # This module imports torch.
    with quick_import():
        from grulab.report.trace import trace

    folder = trace(options.path, options.sequence, Console())
    print(f"\nfolder  {display_path(folder)}")

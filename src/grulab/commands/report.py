"""``grulab report``: leaderboard and figures of a sweep, rebuilt from its folders at any time."""

from collections.abc import Sequence
from pathlib import Path

from grulab.commands.argument_parser import ArgumentParser
from grulab.report.sections import report_console
from grulab.report.sweep_report import write_report
from grulab.run_folder.full_disk import explained_full_disk
from grulab.run_folder.paths import display_path


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab report ARGUMENTS``.

    Raises:
        ConfigError: if an argument is invalid.
    """
    parser = ArgumentParser(prog="grulab report", description=__doc__)
    parser.add_argument("sweep_dir", metavar="DIR", help="the sweep's folder, outputs/sweeps/<name>/<date_time>")
    sweep_dir = Path(parser.parse_args(arguments).sweep_dir)
    with explained_full_disk(sweep_dir, f"grulab report {display_path(sweep_dir)}"):
        write_report(sweep_dir, report_console())

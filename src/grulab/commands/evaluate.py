"""``grulab evaluate``: how good a trained GRU is on its test sequences, or on those of another file with labels."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from grulab.commands.argument_parser import ArgumentParser
from grulab.commands.checkpoint_argument import HELP, checked_checkpoint
from grulab.config.overrides import split_override
from grulab.config_error import ConfigError
from grulab.sequence_files.cache import refuse_no_file
from grulab.system.quick_import import quick_import

_KEYS = ("data.path", "data.labels")


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab evaluate ARGUMENTS``.

    Raises:
        ConfigError: if an argument or the file is invalid.
    """
    parser = ArgumentParser(prog="grulab evaluate", description=__doc__)
    parser.add_argument("checkpoint", metavar="CKPT", help=HELP)
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="data.path=FILE, and data.labels=FILE if the labels are apart",
    )
    options = parser.parse_intermixed_args(arguments)
    places = dict(map(split_override, options.overrides))
    for line in options.overrides:
        if line in ("data.path=", "data.labels="):
            raise ConfigError(f"{line}: has no value; name a file")
        if line.partition("=")[0] not in _KEYS or "=" not in line:
            raise ConfigError(f"{line}: only {' and '.join(_KEYS)} can be named here: a trained model stays as it is")
    if "data.labels" in places and "data.path" not in places:
        raise ConfigError(f"data.labels={places['data.labels']}: needs data.path, the file of the sequences")
    checkpoint = checked_checkpoint(options.checkpoint)
    if "data.path" in places:
        labels = places.get("data.labels")
        refuse_no_file(Path(places["data.path"]), None if labels is None else Path(labels))
    with quick_import():
        from grulab.report.evaluation import evaluate
        from grulab.report.sections import print_sections

    sections = evaluate(checkpoint, places.get("data.path"), places.get("data.labels"))
    print_sections(sections, Console())

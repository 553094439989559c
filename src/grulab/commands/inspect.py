"""``grulab inspect``: what is in a file of sequences, before anything is trained."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from grulab.commands.argument_parser import ArgumentParser
from grulab.config.compose import compose
from grulab.config.overrides import key_of, quoted
from grulab.config_error import ConfigError
from grulab.run_folder.paths import display_path
from grulab.system.quick_import import quick_import
from grulab.tasks.files import Files, FilesConfig, ValueMissingError
from grulab.tasks.registry import build_task

_FOLDER = Path("outputs", "inspect")
# What Hydra reads as it is.
_PLAIN = re.compile(r"[\w./-]+")


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab inspect ARGUMENTS``.

    Raises:
        ConfigError: if the file cannot be used as it is; what data.missing=fill mends is a problem in the report.
    """
    parser = ArgumentParser(
        prog="grulab inspect", description=__doc__, epilog="The keys are those of conf/data/files.yaml."
    )
    parser.add_argument("file", metavar="FILE", help="a .csv, .tsv, .parquet, .npz or .ts file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="such as data.label_column=class")
    options = parser.parse_intermixed_args(arguments)
    for line in options.overrides:
        if key_of(line) in ("data", "data.path"):
            raise ConfigError(f"{line}: the file is named before; leave it out")
    # Hydra takes ${ in a value for a reference.
    if "${" in options.file:
        raise ConfigError(f"{options.file}: Hydra takes the ${{ in its path for a reference; rename the file")
    config = compose(["data=files", f"data.path={quoted(options.file)}", *options.overrides])
    problems = []
    try:
        task = build_task(config.data)
    except ValueMissingError as error:
        assert isinstance(config.data, FilesConfig)
        problems.append(str(error))
        config = replace(config, data=replace(config.data, missing="fill"))
        task = build_task(config.data)
    assert isinstance(task, Files)
    with quick_import():
        from grulab.report.inspection import inspect
        from grulab.report.sections import print_sections, report_console

    # Files in other folders may have the same name.
    figure = _FOLDER / f"{Path(options.file).name}-{task.content[:8]}.png"
    console: Console = report_console()
    print_sections(inspect(config, task, problems, figure), console)
    print(f"\nfigure  {display_path(figure)}")
    fill = ["data.missing=fill"] if problems else []
    path = options.file if _PLAIN.fullmatch(options.file) else quoted(options.file)
    words = ["grulab", "train", "data=files", f"data.path={path}", *options.overrides, *fill]
    print(f"next    {shlex.join(words)}")

"""``grulab export``: write a trained GRU as ONNX, which runs where torch is not installed."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from grulab.commands.argument_parser import ArgumentParser
from grulab.commands.checkpoint_argument import HELP, checked_checkpoint
from grulab.commands.new_file import new_file, refuse_existing
from grulab.config_error import ConfigError
from grulab.run_folder.paths import display_path
from grulab.system.quick_import import quick_import


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab export ARGUMENTS``.

    Raises:
        ConfigError: if an argument is invalid, or onnx or onnxruntime is missing.
    """
    parser = ArgumentParser(prog="grulab export", description=__doc__)
    parser.add_argument("checkpoint", metavar="CKPT", help=HELP)
    parser.add_argument("output", metavar="FILE.onnx", help="a new file")
    options = parser.parse_args(arguments)
    checkpoint, output = checked_checkpoint(options.checkpoint), Path(options.output)
    if output.suffix.lower() != ".onnx":
        raise ConfigError(f"{output}: is no name of an ONNX file; end it with .onnx")
    refuse_existing("FILE.onnx", output)
    if missing := next((name for name in ("onnx", "onnxruntime") if find_spec(name) is None), None):
        raise ConfigError(f"grulab export: {missing} is missing: pip install 'grulab[export]'")
    with quick_import():
        from grulab.training.onnx_export import export
        from grulab.training.trained_model import load_classifier

    data = export(load_classifier(checkpoint))
    with new_file("FILE.onnx", output, "grulab export") as file:
        file.write(data)
    print(f"{display_path(output)}: {len(data):,} bytes; gives the same answers as {display_path(checkpoint)}")

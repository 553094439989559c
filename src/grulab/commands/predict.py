"""``grulab predict``: classify the sequences of a file, of any size, with a trained GRU."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from grulab.commands.argument_parser import ArgumentParser
from grulab.commands.checkpoint_argument import HELP, checked_checkpoint
from grulab.commands.new_file import new_file, refuse_existing
from grulab.config_error import ConfigError
from grulab.sequence_files.cache import refuse_no_file
from grulab.sequence_files.stream import STANDARD_INPUT, Stream
from grulab.system.quick_import import quick_import

_STANDARD_OUTPUT = "-"


def main(arguments: Sequence[str]) -> None:
    """Run ``grulab predict ARGUMENTS``.

    Raises:
        ConfigError: if an argument or the file is invalid; then nothing is left of the output file.
    """
    parser = ArgumentParser(
        prog="grulab predict",
        description=__doc__,
        epilog="The columns of a table are found by the names that the model has learned from. A table is read once, "
        "so the rows of a sequence have to be together.",
    )
    parser.add_argument("checkpoint", metavar="CKPT", help=HELP)
    parser.add_argument(
        "file", metavar="FILE", help="a .csv, .tsv, .parquet, .npz or .ts file; - is a CSV from standard input"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default=_STANDARD_OUTPUT, help="a new CSV file (default: standard output)"
    )
    options = parser.parse_args(arguments)
    checkpoint = checked_checkpoint(options.checkpoint)
    if options.file != STANDARD_INPUT:
        refuse_no_file(Path(options.file), key="")
    if options.output != _STANDARD_OUTPUT:
        refuse_existing("-o", Path(options.output))
    with quick_import():
        from grulab.training.prediction import predict
        from grulab.training.test_results import prediction_cells, prediction_columns
        from grulab.training.trained_model import load_classifier

    classifier = load_classifier(checkpoint)
    stream = Stream(options.file, classifier.task.columns)
    names, count = classifier.task.class_names, 0
    with _opened(options.output) as file:
        writer = csv.writer(file)
        for predictions in predict(classifier, stream):
            if count == 0:
                truth = [] if predictions.labels is None else ["truth"]
                writer.writerow(["id", *truth, *prediction_columns(names)])
            truths = [[label] for label in predictions.labels or []] or [list[str]()] * len(predictions.ids)
            rows = prediction_cells(names, predictions.logits)
            for name, known, cells in zip(predictions.ids, truths, rows, strict=True):
                writer.writerow([name, *known, *cells])
            count += len(predictions.ids)
        if count == 0:
            raise ConfigError(f"{stream.name}: holds no sequence")
    for line in stream.notes:
        print(f"note: {line}", file=sys.stderr)
    print(f"{count:,} sequences of {stream.name} classified", file=sys.stderr)


@contextmanager
def _opened(output: str) -> Iterator[TextIO]:
    if output == _STANDARD_OUTPUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    with new_file("-o", Path(output), "grulab predict") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        yield text
        text.detach()

"""A trace of a trained GRU: the data flow with its shapes, the training by epochs, one prediction step by step."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.tensorboard import SummaryWriter

from grulab.data.batch import PaddedBatch
from grulab.report import trace_figures
from grulab.report.sections import Section, print_sections, to_markdown
from grulab.report.training_trace import training_section
from grulab.run_folder import paths
from grulab.run_folder.checkpoint_bytes import find_checkpoint
from grulab.run_folder.metrics_csv import read_table
from grulab.system.regular_file import refuse_odd_kinds
from grulab.tasks.base import checked_ceiling, refuse_no_sequence
from grulab.training.trained_model import Trained, load_trained

FOLDER = "trace"
REPORT = "trace.md"
PICTURE = "hidden_states.png"
_EVENTS = "events.out.tfevents.*"
_ROWS = 16
# Of the batch that is shown.
_MAX_VALUES = 10**6
_COLUMNS = 8


def trace(path: Path | str, sequence: int = 0, console: Console | None = None) -> Path:
    """Trace a trained GRU; write trace.md, a picture of its hidden states, and both for TensorBoard.

    Args:
        path: a run's folder, whose best checkpoint is used, or a checkpoint.
        sequence: index of the test sequence to follow.
        console: where to print the report, or None.

    Returns:
        The output folder: ``trace/`` in the run's folder, or ``<name>_trace/`` beside a checkpoint outside a run.

    Raises:
        ConfigError: if the path holds no checkpoint, or the test split has no sequence with this index.
    """
    trained = load_trained(find_checkpoint(Path(path)).absolute())
    refuse_no_sequence(trained.task, sequence)
    run_dir = trained.path.parent.parent
    is_in_run = (run_dir / paths.METRICS).is_file()
    folder = run_dir / FOLDER if is_in_run else trained.path.with_name(f"{trained.path.stem}_{FOLDER}")
    files = [folder / name for name in (REPORT, PICTURE)]
    refuse_odd_kinds([*files, *folder.glob(_EVENTS)], [folder])
    folder.mkdir(exist_ok=True)

    with torch.inference_mode():
        sections = [
            _data_flow(trained),
            training_section(read_table(run_dir), trained.task.chance, checked_ceiling(trained.task), trained.epoch),
            *_prediction(trained, sequence, folder / PICTURE),
        ]
    text = to_markdown(f"Trace of {trained.path.name}, epoch {trained.epoch}", sections)
    text += f"\n![Hidden states of the last layer over time]({PICTURE})\n"
    (folder / REPORT).write_text(text, encoding="utf-8")
    _show_in_tensorboard(folder, text, trained.step)
    if console is not None:
        print_sections(sections, console)
    return folder


def _test_batch(trained: Trained, indices: np.ndarray[Any, np.dtype[np.int64]]) -> PaddedBatch:
    return PaddedBatch.of(trained.task.generate(trained.config.data.seed, "test", indices))


def _data_flow(trained: Trained) -> Section:
    data, gru = trained.config.data, trained.module.model.gru
    of_a_sequence = trained.task.length_range[1] * trained.task.num_features
    count = min(data.batch_size, trained.task.size("test"), max(1, _MAX_VALUES // of_a_sequence))
    batch = _test_batch(trained, np.arange(count))
    packed = pack_padded_sequence(batch.x, batch.lengths, batch_first=True, enforce_sorted=False)
    states, last = trained.module.model.hidden_states(batch.x, batch.lengths)
    logits = trained.module.model.head(last)
    probabilities = logits.softmax(dim=1)
    count, longest = batch.x.shape[:2]
    padding = 1 - int(batch.lengths.sum()) / (count * longest)
    width = "both directions" if gru.bidirectional else "one direction"
    sequences = f"{count} x (length, {gru.input_size})"
    stages: list[tuple[str, str, Tensor, str]] = [
        ("pad", sequences, batch.x, f"{padding:.0%} of it is padding"),
        ("lengths", sequences, batch.lengths, "on the CPU, for packing"),
        (
            "pack",
            f"{_shape(batch.x)}, {_shape(batch.lengths)}",
            packed.data,
            "valid steps alone, step by step",
        ),
        ("GRU", _shape(packed.data), states, f"{gru.num_layers} layer(s), {width}; the last layer's states"),
        ("last state", _shape(states), last, "after each sequence's own last step"),
        ("linear head", _shape(last), logits, "logits"),
        ("softmax", _shape(logits), probabilities, "probabilities"),
        ("argmax", _shape(logits), logits.argmax(dim=1), f"classes; the truth is {_values(batch.y)}"),
    ]
    first = (
        "task",
        f"{count} indices",
        sequences,
        _values(batch.x[0, 0]),
        f"{data.task}: step 1 of sequence 0",
    )
    rows = [(stage, before, _shape(after), _values(after), what) for stage, before, after, what in stages]
    table = pd.DataFrame([first, *rows], columns=["stage", "input", "output", "first values", "what it is"])
    parameters = sum(weight.numel() for weight in trained.module.model.parameters())
    text = (
        f"One batch of the test split through the model ({parameters:,} parameters). Shapes are (batch, time, units)."
    )
    return Section("Data flow", text, table)


def _prediction(trained: Trained, sequence: int, picture: Path) -> list[Section]:
    batch = _test_batch(trained, np.array([sequence]))
    states, _ = trained.module.model.hidden_states(batch.x, batch.lengths)
    length, truth = int(batch.lengths[0]), int(batch.y[0])
    shown_steps = _spread(length)
    # The model's prediction if the sequence ended at each of these steps: each prefix is classified as a sequence.
    prefixes = torch.from_numpy(shown_steps + 1)
    answers = trained.module(batch.x.expand(len(prefixes), -1, -1), prefixes).softmax(dim=1)
    trace_figures.hidden_states(
        picture, states[0].numpy(), prefixes.numpy(), answers.numpy(), truth, trained.config.model.hidden_size
    )
    steps = pd.DataFrame(
        {
            "step": shown_steps + 1,
            "input": [_row(batch.x[0, step]) for step in shown_steps],
            "hidden state": [_row(states[0, step]) for step in shown_steps],
            "probabilities so far": [_row(answer) for answer in answers],
        }
    )
    final = answers[-1]
    answer = int(final.argmax())
    verdict = "right" if answer == truth else "wrong"
    text = (
        f"Sequence {sequence} of the test split, {length} steps. The model says class {answer} with "
        f"probability {float(final[answer]):.3f}; the truth is class {truth}: {verdict}."
    )
    if length > len(shown_steps):
        text += f" {len(shown_steps)} of the steps are shown."
    classes = pd.DataFrame(
        {
            "class": range(len(final)),
            "probability": [f"{float(value):.3f}" for value in final],
            "": [_bar(float(value)) for value in final],
            " ": ["truth" if index == truth else "" for index in range(len(final))],
        }
    )
    return [
        Section("Prediction trace", text, steps),
        Section("Class probabilities", "After the last step.", classes),
    ]


def _show_in_tensorboard(folder: Path, text: str, step: int) -> None:
    """Write the picture and the text as a separate TensorBoard run, in place of an earlier trace."""
    for old in folder.glob(_EVENTS):
        old.unlink()
    with SummaryWriter(folder) as writer:
        with Image.open(folder / PICTURE) as picture:
            writer.add_image("trace/hidden_states", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        writer.add_text("trace/report", text, step)


def _spread(length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return at most 16 evenly spaced steps, from 0 to the last."""
    return np.unique(np.linspace(0, length - 1, min(length, _ROWS)).round().astype(np.int64))


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _values(tensor: Tensor) -> str:
    return _row(tensor.flatten()[:4]) + " ..."


def _row(values: Tensor) -> str:
    cells = [f"{value:d}" if isinstance(value, int) else f"{value:.2f}" for value in values[:_COLUMNS].tolist()]
    return " ".join(cells) + (" ..." if len(values) > _COLUMNS else "")


def _bar(share: float) -> str:
    return "█" * round(20 * share)

"""Measure how hidden size, depth and direction affect a GRU on variable-length sequences.

The public names are imported on first use, so that ``import grulab`` and the command line start without
importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grulab.config.compose import compose
    from grulab.config.schema import Config
    from grulab.data.batch import PaddedBatch
    from grulab.data.datamodule import SequenceDataModule
    from grulab.models.gru import GRUClassifier
    from grulab.report.trace import trace
    from grulab.training.module import SequenceClassifier
    from grulab.training.resume import resume
    from grulab.training.run import train

_HOME = {
    "Config": "grulab.config.schema",
    "GRUClassifier": "grulab.models.gru",
    "PaddedBatch": "grulab.data.batch",
    "SequenceClassifier": "grulab.training.module",
    "SequenceDataModule": "grulab.data.datamodule",
    "compose": "grulab.config.compose",
    "resume": "grulab.training.resume",
    "trace": "grulab.report.trace",
    "train": "grulab.training.run",
}

__all__ = [
    "Config",
    "GRUClassifier",
    "PaddedBatch",
    "SequenceClassifier",
    "SequenceDataModule",
    "compose",
    "resume",
    "trace",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'grulab' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)

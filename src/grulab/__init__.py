"""What do hidden size, depth and direction buy a GRU on variable-length sequences?

The public names are imported when they are first used, so that ``import grulab`` and the command line
answer without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grulab.composition import compose
    from grulab.config import Config
    from grulab.data.batch import PaddedBatch
    from grulab.data.datamodule import SequenceDataModule
    from grulab.models.classifier import SequenceClassifier
    from grulab.models.gru import GRUClassifier
    from grulab.report.trace import trace
    from grulab.resuming import resume
    from grulab.run import train

_HOME = {
    "Config": "grulab.config",
    "GRUClassifier": "grulab.models.gru",
    "PaddedBatch": "grulab.data.batch",
    "SequenceClassifier": "grulab.models.classifier",
    "SequenceDataModule": "grulab.data.datamodule",
    "compose": "grulab.composition",
    "resume": "grulab.resuming",
    "trace": "grulab.report.trace",
    "train": "grulab.run",
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

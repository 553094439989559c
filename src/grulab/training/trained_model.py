"""Load a trained model from a checkpoint, with its configuration and its task."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError
from grulab.run_folder.checkpoint_file import KEY, UnsafeCheckpointError, load
from grulab.run_folder.stored_config import parse_stored
from grulab.tasks.base import DataConfig, Task
from grulab.tasks.files import FilesConfig
from grulab.tasks.registry import build_task
from grulab.training.build import build_module
from grulab.training.checkpoint_schema import check_checkpoint
from grulab.training.module import SequenceClassifier
from grulab.training.stored_task import OddMetadataError, StoredTask, refuse_other_task


@dataclass(frozen=True)
class Trained:
    """A model from a checkpoint, in evaluation mode; ``epoch`` counts from 1, ``step`` is Lightning's global step."""

    path: Path
    config: Config
    task: Task
    module: SequenceClassifier
    epoch: int
    step: int


@dataclass(frozen=True)
class Classifier:
    """A model from a checkpoint that has learned from a file, in evaluation mode, with the task as it was stored."""

    path: Path
    config: Config
    task: StoredTask
    module: SequenceClassifier


def load_classifier(path: Path) -> Classifier:
    """Load the model of a checkpoint that has learned from a file, without that file.

    Raises:
        ConfigError: if the file is damaged, unsafe to load, not a checkpoint of this version of grulab, or of a run
            that has learned from generated sequences.
    """
    config, content = _load(path)
    if not isinstance(config.data, FilesConfig):
        raise ConfigError(
            f"{path}: has learned from generated sequences (data={config.data.task}), and no file has such; "
            "grulab trace shows what it does with them"
        )
    try:
        task = StoredTask(content[KEY].get("task"))
        refuse_other_task(config, task)
        check_checkpoint(path, content, config, task)
    except OddMetadataError as error:
        raise ConfigError(f"{path}: is damaged: {error}; name a run's folder or its .ckpt") from None
    except DamagedCheckpointError as error:
        raise ConfigError(f"{error}; name a run's folder or its .ckpt") from None
    module = build_module(config, task)
    module.load_state_dict(content["state_dict"])
    return Classifier(path, config, task, module.float().eval())


def load_trained(path: Path, data: DataConfig | None = None) -> Trained:
    """Load the model of a checkpoint with its configuration and its task.

    Args:
        path: of the checkpoint.
        data: the same sequences in another place; None for the place in the checkpoint.

    Raises:
        ConfigError: if the file is damaged, unsafe to load, or not a checkpoint of this version of grulab.
    """
    config, content = _load(path)
    if data is not None:
        config = dataclasses.replace(config, data=data)
    try:
        check_checkpoint(path, content, config)
    except DamagedCheckpointError as error:
        raise ConfigError(f"{error}; name a run's folder or its .ckpt") from None
    task = build_task(config.data)
    module = build_module(config, task)
    module.load_state_dict(content["state_dict"])
    epoch, step = content["epoch"] + 1, content["global_step"]
    # A run with 64 bits has weights of 64 bits.
    return Trained(path, config, task, module.float().eval(), epoch, step)


def _load(path: Path) -> tuple[Config, dict[str, Any]]:
    """Return the configuration and the content of a checkpoint, of which nothing else is checked yet.

    Raises:
        ConfigError: if the file is damaged, unsafe to load, or not a checkpoint of this version of grulab.
    """
    try:
        content = load(path)
        values = content[KEY].get("config") if isinstance(content[KEY], dict) else None
        if not isinstance(values, dict):
            raise DamagedCheckpointError(f"{path}: is damaged: config is no group of keys")
        return parse_stored(values, path), content
    except (UnsafeCheckpointError, DamagedCheckpointError) as error:
        raise ConfigError(f"{error}; name a run's folder or its .ckpt") from None

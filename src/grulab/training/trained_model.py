"""Load a trained model from a checkpoint, with its configuration and its task."""

from dataclasses import dataclass
from pathlib import Path

from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError
from grulab.run_folder.checkpoint_file import KEY, UnsafeCheckpointError, load
from grulab.run_folder.stored_config import parse_stored
from grulab.tasks.base import Task
from grulab.tasks.registry import build_task
from grulab.training.build import build_module
from grulab.training.checkpoint_schema import check_checkpoint
from grulab.training.module import SequenceClassifier


@dataclass(frozen=True)
class Trained:
    """A model from a checkpoint, in evaluation mode; ``epoch`` counts from 1, ``step`` is Lightning's global step."""

    path: Path
    config: Config
    task: Task
    module: SequenceClassifier
    epoch: int
    step: int


def load_trained(path: Path) -> Trained:
    """Load the model of a checkpoint with its configuration and its task.

    Raises:
        ConfigError: if the file is damaged, unsafe to load, or not a checkpoint of this version of grulab.
    """
    try:
        content = load(path)
        values = content[KEY]["config"] if isinstance(content[KEY], dict) else None
        if not isinstance(values, dict):
            raise DamagedCheckpointError(f"{path}: is damaged: config is no group of keys")
        config = parse_stored(values, path)
        check_checkpoint(path, content, config)
    except (UnsafeCheckpointError, DamagedCheckpointError) as error:
        raise ConfigError(f"{error}; name a run's folder or its .ckpt") from None
    except KeyError as error:
        raise ConfigError(f"{path}: is damaged: {error} is missing; name a run's folder or its .ckpt") from None
    task = build_task(config.data)
    module = build_module(config, task)
    module.load_state_dict(content["state_dict"])
    epoch, step = content["epoch"] + 1, content["global_step"]
    # A run with 64 bits has weights of 64 bits.
    return Trained(path, config, task, module.float().eval(), epoch, step)

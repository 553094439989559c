"""Load a trained model from a checkpoint, with its configuration and its task."""

from dataclasses import dataclass
from pathlib import Path

from grulab.config.schema import Config
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.checkpoint_file import KEY, DamagedCheckpointError, UnsafeCheckpointError, load
from grulab.run_folder.stored_config import parse_stored
from grulab.tasks.base import Task
from grulab.tasks.registry import build_task
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


def find_checkpoint(path: Path) -> Path:
    """Return the path itself if it is a file, or the best checkpoint if it is a run's folder.

    Raises:
        ConfigError: if the path does not exist, or the folder holds no best checkpoint.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    best = path / paths.CHECKPOINTS / paths.BEST
    if not best.is_file():
        raise ConfigError(f"{path}: holds no {paths.CHECKPOINTS}/{paths.BEST}; name a run's folder or a .ckpt")
    return best


def load_trained(path: Path) -> Trained:
    """Load the model of a checkpoint with its configuration and its task.

    Raises:
        ConfigError: if the file is damaged, unsafe to load, or not a checkpoint of this version of grulab.
    """
    try:
        content = load(path)
        config = parse_stored(content[KEY]["config"], path)
        module = SequenceClassifier(**content[SequenceClassifier.CHECKPOINT_HYPER_PARAMS_KEY])
        module.load_state_dict(content["state_dict"])
    except UnsafeCheckpointError as error:
        raise ConfigError(str(error)) from None
    except (DamagedCheckpointError, RuntimeError, KeyError, TypeError):
        raise ConfigError(
            f"{path}: is not a checkpoint of grulab, or damaged; name a run's folder or its .ckpt"
        ) from None
    epoch, step = content["epoch"] + 1, content["global_step"]
    return Trained(path, config, build_task(config.data), module.eval(), epoch, step)

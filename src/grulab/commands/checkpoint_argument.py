"""The argument CKPT of several subcommands, checked without torch, which takes seconds to import."""

from pathlib import Path

from grulab.config_error import ConfigError
from grulab.run_folder.checkpoint_bytes import DamagedCheckpointError, find_checkpoint, read_checkpoint

HELP = "a .ckpt, or a run's folder (its best checkpoint is taken)"


def checked_checkpoint(path: str) -> Path:
    """Return the absolute path of the checkpoint that an argument names.

    Raises:
        ConfigError: if there is none, or it is damaged.
    """
    checkpoint = find_checkpoint(Path(path))
    try:
        read_checkpoint(checkpoint)
    except DamagedCheckpointError as error:
        raise ConfigError(f"{error}; name a run's folder or its .ckpt") from None
    return checkpoint.absolute()

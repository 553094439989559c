"""A faster GRU for the CPU, where it was built when grulab was installed. No torch here, only in fused.py."""

from grulab.config import Config, ConfigError
from grulab.kernels import library


def refuse_missing(config: Config) -> None:
    """Check that the kernels are here if the configuration insists on them.

    Raises:
        ConfigError: if not.
    """
    if config.model.backend == "fused" and not library.is_built():
        raise ConfigError(f"model.backend=fused: {library.REMEDY}; use model.backend=auto")

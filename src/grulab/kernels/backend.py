"""What to say and do where the kernels are not built. No torch here: it is said before anything slow is imported."""

from grulab.config.schema import Config, ConfigError
from grulab.kernels import library


def refuse_missing(config: Config) -> None:
    """Check that the kernels are here if the configuration insists on them.

    Raises:
        ConfigError: if not.
    """
    if config.model.backend == "fused" and not library.is_built():
        raise ConfigError(
            f"model.backend=fused: the fused kernels {library.problem()}; {library.REMEDY}, or use model.backend=auto"
        )


def note_of_missing() -> str | None:
    """Return a line that says what it costs that the kernels are not here, or None if they are."""
    if library.is_built():
        return None
    return (
        f"model.backend=auto: the fused kernels {library.problem()}, so nn.GRU runs, which takes several times as "
        f"long; {library.REMEDY}"
    )

"""One of a sweep's runs."""

from dataclasses import dataclass

from grulab.config.schema import Config


@dataclass(frozen=True)
class Job:
    """One of a sweep's runs.

    Attributes:
        number: from 0, in the sweep's order.
        folder: its name in the sweep's folder.
        overrides: as ``key=value``.
        config: of the run.
    """

    number: int
    folder: str
    overrides: list[str]
    config: Config

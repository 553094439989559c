"""One run of a sweep."""

from dataclasses import dataclass

from grulab.config.schema import Config


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        number: position in the sweep, from 0.
        folder: name of the job's folder in the sweep's folder.
        overrides: overrides of the job, as ``key=value``.
        config: configuration of the run.
    """

    number: int
    folder: str
    overrides: list[str]
    config: Config

"""The design of a sweep: what is refused because it could not be compared, before anything starts."""

from collections.abc import Sequence

from grulab.config.overrides import key_of, split_override
from grulab.config.schema import Config
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.sweep.growth import of_any_seed
from grulab.sweep.job import Job
from grulab.sweep.sweeper_settings import GridSettings, RaceSettings


def refuse_odd_design(settings: GridSettings, jobs: Sequence[Job], overrides: Sequence[str]) -> None:
    """Check that the settings of a sweeper go with its jobs.

    Args:
        settings: of the sweeper.
        jobs: all jobs of the command.
        overrides: of the command.

    Raises:
        ConfigError: naming what has no use.
    """
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in map(split_override, job.overrides):
            values.setdefault(key, set()).add(value)
    for key in settings.tune:
        if key == "seed":
            raise ConfigError("hydra.sweeper.tune=[seed]: seeds are not chosen: the mean over them is compared")
        if len(values.get(key, ())) < 2:
            raise ConfigError(f"hydra.sweeper.tune=[{key}]: is not swept; give it several values, or leave it out")
    refuse_other_end(settings.rungs, overrides)
    if isinstance(settings, RaceSettings) and len({of_any_seed(job.config) for job in jobs}) < 2:
        raise ConfigError("hydra/sweeper=race: there is one configuration, and a race needs two; sweep a key")


def refuse_other_end(rungs: Sequence[int] | None, overrides: Sequence[str]) -> None:
    """Check that a command with rungs names no other number of epochs than the last rung.

    Raises:
        ConfigError: if it does.
    """
    if not rungs:
        return
    given = {key_of(line): line for line in overrides if key_of(line) in ("trainer.max_epochs", "optimizer.horizon")}
    if odd := next((line for line in given.values() if split_override(line)[1] != str(rungs[-1])), None):
        raise ConfigError(f"{odd}: the last of hydra.sweeper.rungs is {rungs[-1]} epochs; leave it out")


def refuse_other_length(before: Config, after: Config, rungs: Sequence[int] | None) -> None:
    """Check that a search that goes on trains as long as before: its trials could not be compared.

    Raises:
        ConfigError: if it does not.
    """
    for key in ("max_epochs", "early_stopping_patience"):
        old, new = getattr(before.trainer, key), getattr(after.trainer, key)
        if old != new and not (key == "max_epochs" and rungs):
            raise ConfigError(
                f"trainer.{key}={shown_value(new)}: the trials of this search have {shown_value(old)}; put it back, "
                "or begin another search"
            )

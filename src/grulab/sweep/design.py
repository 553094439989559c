"""The design of a sweep: what is refused because it could not be compared, before anything starts."""

import difflib
from collections.abc import Callable, Iterable, Sequence

from grulab.config.overrides import key_of, split_override
from grulab.config.same_run import STOPPING, flatten, what_differs
from grulab.config.schema import Config
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.sweep.expand import values_of_keys
from grulab.sweep.job import Job
from grulab.sweep.manifest import Manifest
from grulab.sweep.rungs import configurations
from grulab.sweep.sweeper_settings import GridSettings, RaceSettings, SearchSettings

_SEEDS = ("seed", "data.seed")


def refuse_odd_design(settings: GridSettings, jobs: Sequence[Job], overrides: Sequence[str]) -> None:
    """Check that the settings of a sweeper go with its jobs.

    Args:
        settings: of the sweeper.
        jobs: all jobs of the command.
        overrides: of the command.

    Raises:
        ConfigError: naming what has no use.
    """
    values = values_of_keys(job.overrides for job in jobs)
    for key in settings.tune:
        if key in _SEEDS:
            raise ConfigError(f"hydra.sweeper.tune=[{key}]: seeds are not chosen: the mean over them is compared")
        swept = [name for name, found in values.items() if len(found) > 1]
        if key not in swept:
            near = [name for name in swept if name.endswith(f".{key}")] or difflib.get_close_matches(key, swept)
            hint = f"did you mean {near[0]}?" if near else "give it several values, or leave it out"
            raise ConfigError(f"hydra.sweeper.tune=[{key}]: is not swept; {hint}")
    refuse_other_end(settings.rungs, overrides)
    data_seeds = {job.config.data.seed for job in jobs}
    if (settings.rungs or isinstance(settings, RaceSettings)) and len(data_seeds) > 1:
        what = "hydra.sweeper.rungs" if settings.rungs else "hydra/sweeper=race"
        raise ConfigError(
            f"data.seed={','.join(map(str, sorted(data_seeds)))}: {what} would choose the easiest data; name one, or "
            "leave out the rungs or the race"
        )
    groups = configurations(jobs, is_of_rungs=bool(settings.rungs))
    seeds = {job.config.seed for job in jobs}
    if (settings.rungs or isinstance(settings, RaceSettings)) and len(seeds) > 1 == max(map(len, groups.values())):
        what = "hydra.sweeper.rungs" if settings.rungs else "hydra/sweeper=race"
        raise ConfigError(f"{what}: no configuration has two seeds; a key that changes with the seed makes others")
    if isinstance(settings, RaceSettings) and len(groups) < 2:
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


def refuse_another_search(
    before: Manifest | None, after: Config, settings: SearchSettings, searched: Iterable[str]
) -> None:
    """Check that a search that goes on is the one in its folder: its trials could not be compared.

    Args:
        before: what is in the folder.
        after: a configuration of the command, at an end of its axes.
        settings: of the command.
        searched: the keys that it searches.

    Raises:
        ConfigError: naming what differs.
    """
    if before is None or not before.jobs:
        return
    if before.design["seeds"] != settings.seeds:
        seeds = shown_value(before.design["seeds"])
        raise ConfigError(
            f"hydra.sweeper.seeds={shown_value(settings.seeds)}: the search in the folder has {seeds}; put it back"
        )
    old, new = (flatten(config.to_dict()) for config in (before.jobs[0].config, after))
    # Computed from a budget, or of the rungs.
    free = {*searched, "seed", "name", *(["model.hidden_size"] if after.model.parameter_budget is not None else [])}
    free |= {"trainer.max_epochs", "optimizer.horizon"} if settings.rungs else set()
    fixed = {"trainer.max_epochs", *STOPPING, *what_differs(old, new)} - free
    if differing := sorted(key for key in fixed if old.get(key) != new.get(key)):
        key = differing[0]
        raise ConfigError(
            f"{key}={shown_value(new.get(key))}: the trials of this search have {shown_value(old.get(key))}; put it "
            "back, or begin another search"
        )


def refuse_other_folders(jobs: Sequence[Job], name_of: Callable[[int, list[str]], str]) -> None:
    """Check that jobs are in the folders that Hydra gives them: its own launchers know no others.

    Raises:
        ConfigError: naming one that is not.
    """
    odd = next((job for job in jobs if name_of(job.number, job.overrides) != job.folder), None)
    if odd is not None:
        raise ConfigError(
            f"hydra/launcher: job {odd.number} of this sweep, which has grown, is in {odd.folder}, where only "
            "hydra/launcher=local finds it"
        )


def outlook(settings: GridSettings) -> str:
    """Return what follows from the results of a sweep's jobs, in words."""
    parts = []
    if settings.rungs:
        rungs = ", ".join(map(str, settings.rungs))
        parts.append(
            f"All train to the first of the rungs {rungs}, which replace trainer.max_epochs; from each, "
            f"{settings.keep:.0%} go on to the next."
        )
    if isinstance(settings, RaceSettings):
        parts.append(f"Further seeds follow in rounds, up to hydra.sweeper.max_jobs={settings.max_jobs} jobs.")
    return " ".join(parts)


def outlook_of_search(settings: SearchSettings) -> str:
    """Return how many jobs a search makes, in words."""
    seeds = len(settings.seeds)
    return (
        f"{settings.n_trials} trials of {seeds} seeds, and {settings.confirm} fresh seeds of the best: at most "
        f"{settings.n_trials * seeds + settings.confirm} jobs."
    )

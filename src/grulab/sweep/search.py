"""A search: Optuna's sampler proposes configurations, told what the folders of those before say.

The study is made anew for each proposal, from sweep.json and the summaries, and the sampler is seeded by the number
of the trial. So there is no database, and a search that was killed goes on as if it had not been.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from grulab.config.overrides import key_of, split_override
from grulab.config.same_run import flatten
from grulab.config.schema import is_higher_better
from grulab.config_error import ConfigError
from grulab.run_folder.full_disk import is_full_disk
from grulab.run_folder.summary import read_summary
from grulab.sweep import manifest
from grulab.sweep.growth import of_any_seed
from grulab.sweep.job import Job
from grulab.sweep.job_scores import has_diverged, score_at
from grulab.sweep.rungs import configurations, in_first_share, until
from grulab.sweep.search_space import Axis, parse_space
from grulab.sweep.status import result_of
from grulab.sweep.sweeper_settings import SearchSettings

if TYPE_CHECKING:
    import optuna

JOURNAL = "optuna.journal"
# Proposals that were tried before are drawn again so many times.
_ATTEMPTS = 200
# The first trials are random.
_RANDOM_TRIALS = 10

# (number of the job, overrides) -> the job, composed and checked.
Compose = Callable[[int, list[str]], Job]


@dataclass(frozen=True)
class Trial:
    """A configuration that a search has tried.

    Attributes:
        jobs: one for each seed.
        values: by key, the values that are searched; None if one is outside the space of now.
        scores: after the epochs of each rung that it has reached, or at its end: the mean over seeds.
        state: running, stopped (at a rung), failed or done.
    """

    jobs: list[Job]
    values: dict[str, Any] | None
    scores: dict[int, float]
    state: str


class Search:
    """Proposes jobs, as many as there is room for.

    Args:
        sweep_dir: the sweep's folder.
        settings: of the sweeper.
        arguments: the overrides of the command; those with several values are searched.
        monitor: the metric that is searched for.
        compose: makes a job.
    """

    def __init__(
        self, sweep_dir: Path, settings: SearchSettings, arguments: Sequence[str], monitor: str, compose: Compose
    ) -> None:
        self._sweep_dir, self._settings, self._monitor, self._compose = sweep_dir, settings, monitor, compose
        self._axes = parse_space(arguments)
        searched = {axis.key for axis in self._axes}
        self._fixed = [line for line in arguments if key_of(line) not in searched]
        # Proposals that no run can have, such as a budget too small for so many layers.
        self._impossible: list[dict[str, Any]] = []
        self._is_exhausted = False

    def more(self, at_once: int = 1) -> list[Job]:
        """Return jobs to run now, which are in sweep.json then; [] if others have to end first, or all is done.

        Args:
            at_once: the number of trials, which are written together: a search that is killed has all or none.
        """
        known = manifest.read(self._sweep_dir)
        assert known is not None
        jobs = known.jobs
        found: dict[int, Job] = {}
        for _ in range(at_once):
            following = self._following(jobs)
            numbers = {job.number: job for job in following}
            # Promoted jobs replace themselves; the others are new.
            have = len(jobs)
            jobs = [numbers.get(job.number, job) for job in jobs]
            jobs += [job for job in following if job.number >= have]
            found |= numbers
            if not following:
                break
        if found:
            manifest.write(self._sweep_dir, replace(known, jobs=jobs))
        return list(found.values())

    def _following(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs of one trial that follows from the results of some jobs; [] if none does."""
        trials = self._trials(jobs)
        if self._is_stuck(trials):
            return []
        if promoted := self._promoted(trials):
            return promoted
        if len(trials) < self._settings.n_trials:
            return self._proposed(jobs, trials)
        if any(trial.state == "running" for trial in trials):
            return []
        return self._confirming(jobs, trials)

    def outside(self) -> int:
        """Return the number of trials that have values outside of the space."""
        known = manifest.read(self._sweep_dir)
        return sum(trial.values is None for trial in self._trials(known.jobs)) if known else 0

    def _is_stuck(self, trials: Sequence[Trial]) -> bool:
        """Return whether a job has failed that may succeed when it is tried again: what follows depends on it."""
        folders = [self._sweep_dir / job.folder for trial in trials if trial.state == "running" for job in trial.jobs]
        return any((read_summary(folder) or {}).get("status") == "failed" for folder in folders)

    def _trials(self, jobs: Sequence[Job]) -> list[Trial]:
        return read_trials(self._sweep_dir, jobs, self._axes, self._settings)

    def _promoted(self, trials: Sequence[Trial]) -> list[Job]:
        """Return the jobs of a trial that goes on to its next rung: it is among the best of those before it."""
        for rung, following in pairwise(self._settings.rungs or []):
            before: list[float] = []
            for trial in trials:
                score = trial.scores.get(rung)
                if score is None:
                    continue
                before.append(score)
                at_rung = trial.jobs[0].config.trainer.max_epochs == rung
                if at_rung and trial.state == "stopped" and self._is_among_best(before):
                    return [replace(job, config=until(job.config, following)) for job in trial.jobs]
        return []

    def _is_among_best(self, scores: Sequence[float]) -> bool:
        """Return whether the last of some scores is in their first share."""
        better = sum(score > scores[-1] if self._is_higher_better() else score < scores[-1] for score in scores)
        return better < in_first_share(len(scores), self._settings.keep)

    def _is_higher_better(self) -> bool:
        return is_higher_better(self._monitor)

    def _proposed(self, jobs: Sequence[Job], trials: Sequence[Trial]) -> list[Job]:
        """Return the jobs of a new trial; if all values have been tried, those that confirm the best."""
        tried = [trial.values for trial in trials]
        made = {of_any_seed(job.config, is_of_rungs=True) for job in jobs}
        for attempt in range(_ATTEMPTS):
            proposed = self._ask(trials, attempt)
            lines = [axis.written(proposed[axis.key]) for axis in self._axes]
            # As they are read back from sweep.json.
            values = {axis.key: axis.read(split_override(ln)[1]) for axis, ln in zip(self._axes, lines, strict=True)}
            if values in tried or values in self._impossible:
                continue
            try:
                proposed_jobs = [
                    self._compose(len(jobs) + place, [*self._fixed, *lines, f"seed={seed}"])
                    for place, seed in enumerate(self._settings.seeds)
                ]
            except ConfigError:
                self._impossible.append(values)
                continue
            if of_any_seed(proposed_jobs[0].config, is_of_rungs=True) not in made:
                return proposed_jobs
            # Written in another way, it is a configuration that was tried.
            self._impossible.append(values)
        if any(trial.state == "running" for trial in trials):
            return []
        if not self._is_exhausted:
            self._is_exhausted = True
            print(f"search  over after {len(trials)} trials: nothing that is new was found in {_ATTEMPTS} draws")
        return self._confirming(jobs, trials)

    def _confirming(self, jobs: Sequence[Job], trials: Sequence[Trial]) -> list[Job]:
        """Return the jobs of the best configuration with seeds that did not choose it; [] if they are there."""
        best = best_trial(trials, self._is_higher_better())
        if best is None:
            return []
        groups = configurations(jobs, is_of_rungs=bool(self._settings.rungs)).values()
        (group,) = [group for group in groups if group[0].number == best.jobs[0].number]
        have = {job.config.seed for job in group}
        unused = (seed for seed in count() if seed not in self._settings.seeds)
        seeds = [next(unused) for _ in range(self._settings.confirm)]
        lines = [line for line in best.jobs[0].overrides if split_override(line)[0] != "seed"]
        missing = [seed for seed in seeds if seed not in have]
        added = [self._compose(len(jobs) + place, [*lines, f"seed={seed}"]) for place, seed in enumerate(missing)]
        if added:
            print(f"search  the best of {len(trials)} trials is trained with {len(added)} fresh seeds")
        last = best.jobs[0].config.trainer.max_epochs
        return [replace(job, config=until(job.config, last)) for job in added]

    def _ask(self, trials: Sequence[Trial], attempt: int) -> dict[str, Any]:
        import optuna

        seed = int(np.random.SeedSequence([self._settings.sampler_seed, len(trials), attempt]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = optuna.samplers.TPESampler(
                seed=seed, constant_liar=True, multivariate=True, n_startup_trials=_RANDOM_TRIALS
            )
            study = self._study(trials, sampler=sampler)
            trial = study.ask(distributions(self._axes))
        return {axis.key: trial.params[axis.key] for axis in self._axes}

    def _study(self, trials: Sequence[Trial], **settings: Any) -> "optuna.Study":
        return make_study(trials, self._axes, self._monitor, **settings)

    def write_journal(self) -> None:
        """Write the ended trials as a journal of Optuna, for optuna-dashboard; nothing is read from it."""
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        known = manifest.read(self._sweep_dir)
        ended = [trial for trial in self._trials(known.jobs) if trial.state != "running"] if known else []
        path = self._sweep_dir / JOURNAL
        temporary = path.with_name(f".{JOURNAL}.tmp")
        try:
            temporary.unlink(missing_ok=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._study(ended, storage=JournalStorage(JournalFileBackend(str(temporary))), study_name="grulab")
            temporary.replace(path)
        except OSError as error:
            if is_full_disk(error):
                raise


def read_trials(sweep_dir: Path, jobs: Sequence[Job], axes: Sequence[Axis], settings: SearchSettings) -> list[Trial]:
    """Return the trials of a search in their order, with what their folders say."""
    trials = []
    last = settings.rungs[-1] if settings.rungs else None
    for group in configurations(jobs, is_of_rungs=bool(settings.rungs)).values():
        members = [job for job in group if job.config.seed in settings.seeds]
        values = {axis.key: _value_of(axis, members[0]) for axis in axes}
        epochs = members[0].config.trainer.max_epochs
        scores = {}
        for rung in settings.rungs or [epochs]:
            found = [score_at(sweep_dir / job.folder, job, rung) for job in members]
            known = [score for score in found if score is not None]
            if rung <= epochs and len(known) == len(settings.seeds):
                scores[rung] = float(np.mean(known))
        if all(result_of(sweep_dir / job.folder, job.config) is not None for job in members):
            state = "done" if last in (None, epochs) else "stopped"
        else:
            state = "failed" if any(has_diverged(sweep_dir / job.folder) for job in members) else "running"
        trials.append(Trial(members, values if None not in values.values() else None, scores, state))
    return trials


def _value_of(axis: Axis, job: Job) -> Any:
    """Return a job's value on an axis, also if the key was not searched when the job was made; None if outside."""
    text = dict(map(split_override, job.overrides)).get(axis.key)
    return axis.read(str(flatten(job.config.to_dict()).get(axis.key)) if text is None else text)


def best_trial(trials: Sequence[Trial], higher: bool) -> Trial | None:
    """Return the trial with the best mean of those that were trained to the end."""
    done = [trial for trial in trials if trial.state == "done" and trial.scores]
    sign = 1 if higher else -1
    return max(done, key=lambda trial: sign * trial.scores[max(trial.scores)], default=None)


def distributions(axes: Sequence[Axis]) -> dict[str, Any]:
    """Return the axes as Optuna has them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for axis in axes:
        if axis.choices:
            found[axis.key] = CategoricalDistribution(tuple(axis.choices))
            continue
        assert axis.low is not None
        assert axis.high is not None
        if axis.is_whole:
            found[axis.key] = IntDistribution(
                int(axis.low), int(axis.high), log=axis.is_log, step=int(axis.step or 1)
            )
        else:
            found[axis.key] = FloatDistribution(axis.low, axis.high, log=axis.is_log, step=axis.step)
    return found


def make_study(trials: Sequence[Trial], axes: Sequence[Axis], monitor: str, **settings: Any) -> "optuna.Study":
    """Return a study of Optuna with these trials; what is outside of its space is left out."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction: Literal["maximize", "minimize"] = "maximize" if is_higher_better(monitor) else "minimize"
    study = optuna.create_study(direction=direction, **settings)
    space = distributions(axes)
    states = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    for trial in trials:
        if trial.values is None:
            continue
        state = states.get(trial.state, TrialState.RUNNING)
        if state == TrialState.COMPLETE and not trial.scores:
            # metrics.csv is lost.
            continue
        value = trial.scores[max(trial.scores)] if state == TrialState.COMPLETE else None
        study.add_trial(
            create_trial(
                params=trial.values, distributions=space, value=value, state=state, intermediate_values=trial.scores
            )
        )
    return study

"""The SLURM launcher: a sweep as an array of tasks, a slice each; SLURM alone decides what runs where and when."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn

from grulab.cluster.logs import last_words
from grulab.cluster.slurm_queue import QueuedTask, QueueError, in_words, submit, tasks_of
from grulab.cluster.slurm_script import (
    Submissions,
    add_array,
    read_submissions,
    refuse_odd_path,
    write_script,
)
from grulab.cluster.watch import watch
from grulab.cluster.words import words_for_work
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.sweep.failures import Submitted
from grulab.sweep.job import Job
from grulab.sweep.job_progress import JobProgress
from grulab.sweep.job_scores import has_diverged
from grulab.sweep.live_table import LiveTable
from grulab.sweep.slurm_settings import SlurmSettings


def launch(
    sweep_dir: Path,
    settings: SlurmSettings,
    jobs: Sequence[Job],
    given_up: set[int],
    over: set[str],
) -> list[JobReturn]:
    """Run the jobs that are not done as an array; join one that is queued or running already.

    Args:
        sweep_dir: the sweep's folder.
        settings: of the launcher.
        jobs: of sweep.json.
        given_up: numbers of the jobs that have diverged in this command, which are not run again; it is extended.
        over: numbers of the arrays of this command whose jobs are done; it is extended.

    Returns:
        The result of each job.

    Raises:
        ConfigError: if SLURM refuses the array, with its reason.
        Submitted: with ``wait=false``, after the submission.
        Interrupted: after a signal; the tasks go on.
    """
    refuse_odd_path(sweep_dir)
    everything = [JobProgress(job, sweep_dir / job.folder) for job in jobs]
    for progress in everything:
        progress.look_before(sweep_dir, given_up)
    if any(progress.state == "pending" for progress in everything):
        _Arrays(sweep_dir, settings, given_up, over).run(everything)
    given_up |= {job.job.number for job in everything if job.state == "failed" and has_diverged(job.folder)}
    return [progress.returned() for progress in everything]


class _Arrays:
    """The arrays of one sweep; at most one of them is in SLURM's queue at a time."""

    def __init__(self, sweep_dir: Path, settings: SlurmSettings, given_up: set[int], over: set[str]) -> None:
        self._sweep_dir, self._settings, self._given_up, self._over = sweep_dir, settings, given_up, over
        # Filled in when the name is known.
        self._submissions: Submissions = {"job_name": "", "arrays": []}

    def run(self, jobs: Sequence[JobProgress]) -> None:
        """Run the pending jobs, and set their states."""
        self._submissions = read_submissions(self._sweep_dir, jobs[0].job.config.name)
        queued = self._queued()
        if queued:
            print(f"joins   array {self._numbers(queued)}: {in_words(queued)}", flush=True)
            if not self._settings.wait:
                raise Submitted(self._how_to_come_back())
            self._watch(jobs)
        todo = [job for job in jobs if job.state in ("pending", "interrupted")]
        if not todo:
            return
        for job in todo:
            job.state, job.cause = "pending", ""
        array, slices = self._submit([job.job.number for job in todo], self._settings.tasks_for(len(jobs)))
        if not self._settings.wait:
            raise Submitted(self._how_to_come_back())
        self._watch(jobs)
        if any(job.state in ("pending", "interrupted") for job in jobs):
            folder = self._sweep_dir / paths.SLURM_LOGS
            for line in last_words({index: folder / f"{array}_{index}.log" for index in slices}):
                print(f"note: task {line}")
        # Its tasks may need a moment to end.
        self._over.add(array)

    def _submit(self, numbers: Sequence[int], count: int) -> tuple[str, list[int]]:
        """Submit an array for jobs with these numbers; return its number, and those of its tasks' slices of count."""
        slices = sorted({number % count for number in numbers})
        words = words_for_work(self._sweep_dir)
        if self._given_up:
            words.append(f"--skip={','.join(map(str, sorted(self._given_up)))}")
        name = self._submissions["job_name"]
        script = write_script(self._sweep_dir, name, self._settings, slices, count, words)
        try:
            array = submit(script)
        except QueueError as error:
            if not self._submissions["arrays"]:
                # Nothing is left behind by a mistake.
                for path in (script, self._sweep_dir / paths.SLURM):
                    path.unlink()
                shutil.rmtree(self._sweep_dir / paths.SLURM_LOGS)
            raise ConfigError(f"hydra/launcher=slurm: sbatch: {error}") from None
        add_array(self._sweep_dir, self._submissions, array, len(slices))
        print(
            f"array   {array}: {len(slices)} tasks for {len(numbers)} jobs; their logs are in "
            f"{display_path(self._sweep_dir / paths.SLURM_LOGS)}",
            flush=True,
        )
        return array, slices

    def _watch(self, jobs: Sequence[JobProgress]) -> None:
        todo = [job for job in jobs if job.state == "pending"]
        with LiveTable(jobs, self._settings.tasks_for(len(todo))) as display:
            watch(todo, display, lambda: self._is_over(display), self._leave)

    def _is_over(self, display: LiveTable) -> bool:
        try:
            queued = tasks_of(self._submissions["job_name"])
        except QueueError:
            # It is down for a while, perhaps; the jobs may be running.
            return False
        display.queue(in_words(queued), all(task.state == "PENDING" for task in queued))
        return not queued

    def _queued(self) -> list[QueuedTask]:
        try:
            return [task for task in tasks_of(self._submissions["job_name"]) if task.array not in self._over]
        except QueueError as error:
            raise ConfigError(
                f"hydra/launcher=slurm: squeue: {error}; without it nobody knows what is queued already"
            ) from None

    def _leave(self) -> str:
        return f"the tasks go on without this command:\n{self._how_to_come_back()}"

    def _how_to_come_back(self) -> str:
        name = self._submissions["job_name"]
        return (
            f"  watch   squeue --me --name={name}\n"
            f"  cancel  scancel --me --name={name}  (running jobs save themselves)\n"
            f"  return  grulab resume {display_path(self._sweep_dir)}"
        )

    def _numbers(self, queued: Sequence[QueuedTask]) -> str:
        return ", ".join(dict.fromkeys(task.array for task in queued))

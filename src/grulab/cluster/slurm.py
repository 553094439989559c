"""The SLURM launcher: a sweep as an array of tasks, a slice each; SLURM alone decides what runs where and when."""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.utils import JobReturn

from grulab.cluster.launch import launch_pending, pending, slices_of
from grulab.cluster.logs import last_words
from grulab.cluster.slurm_queue import QueuedTask, QueueError, in_words, submit, tasks_of
from grulab.cluster.slurm_script import Submissions, add_array, read_submissions, refuse_odd_path, write_script
from grulab.cluster.watch import Stamp, stamp, watch
from grulab.cluster.work_arguments import work_arguments
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.sweep import manifest
from grulab.sweep.failures import Submitted
from grulab.sweep.job import Job
from grulab.sweep.job_progress import JobProgress
from grulab.sweep.live_table import LiveTable, many
from grulab.sweep.slurm_settings import SlurmSettings
from grulab.sweep.stored_arguments import resume_command

_EMPTY_ANSWERS = 2
# The tasks of an array whose jobs are done end within seconds.
_SECONDS_BETWEEN_LOOKS = 0.2


def launch(
    sweep_dir: Path, settings: SlurmSettings, jobs: Sequence[Job], given_up: set[int], before: set[str]
) -> list[JobReturn]:
    """Run the jobs that are not done as an array; join one that is queued or running already.

    Args:
        sweep_dir: the sweep's folder.
        settings: of the launcher.
        jobs: all of sweep.json.
        given_up: numbers of the jobs that have diverged in this command, which are not run again; it is extended.
        before: numbers of the arrays that this command has followed to their end; it is extended.

    Returns:
        The result of each job.

    Raises:
        ConfigError: if SLURM refuses the array, with its reason.
        Submitted: with ``wait=false``, after the submission.
        Interrupted: after a signal; the tasks go on.
    """
    for folder in (sweep_dir, Path.cwd()):
        refuse_odd_path(folder)
    return launch_pending(sweep_dir, jobs, given_up, _Arrays(sweep_dir, settings, given_up, before).run)


def refuse_beside_array(sweep_dir: Path) -> None:
    """Check that no array of a sweep is in SLURM's queue, before something else runs its jobs.

    Raises:
        ConfigError: if one is.
    """
    if not (sweep_dir / paths.SLURM).exists() or shutil.which("squeue") is None:
        return
    name = read_submissions(sweep_dir, "")["job_name"]
    try:
        queued = tasks_of(name)
    except QueueError:
        return
    if queued:
        raise ConfigError(
            f"hydra/launcher: array {queued[0].array} of this sweep is in SLURM's queue ({in_words(queued)}); resume "
            f"with hydra/launcher=slurm, or cancel it first: scancel --me --name={name}"
        )


class _Arrays:
    """The arrays of one sweep; a new one is submitted when no task of another is left."""

    def __init__(self, sweep_dir: Path, settings: SlurmSettings, given_up: set[int], before: set[str]) -> None:
        self._sweep_dir, self._settings, self._given_up, self._before = sweep_dir, settings, given_up, before
        self._empty_answers = 0
        # Filled in when the name is known.
        self._submissions: Submissions = {"job_name": "", "arrays": []}

    def run(self, jobs: Sequence[JobProgress]) -> None:
        """Run the pending jobs, and set their states."""
        self._submissions = read_submissions(self._sweep_dir, jobs[0].job.config.name)
        todo = pending(jobs)
        if queued := self._queued():
            known = self._join(jobs, queued)
            # What it has left was stopped, by somebody or on_failure=stop. It knows nothing of jobs that came later.
            todo = [job for job in pending(todo) if job.job.number >= known]
        if not todo:
            return
        stamps = {job.job.number: stamp(job.folder) for job in todo}
        array, slices = self._submit(todo, len(jobs))
        if not self._settings.wait:
            raise Submitted(self._how_to_come_back())
        self._watch(jobs, todo, stamps)
        self._before.add(array)
        if any(job.state in ("pending", "interrupted") for job in todo):
            folder = self._sweep_dir / paths.SLURM_LOGS
            for line in last_words({index: folder / f"{array}_{index}.log" for index in slices}):
                print(f"note: task {line}")

    def _join(self, jobs: Sequence[JobProgress], queued: list[QueuedTask]) -> int:
        """Follow an array that is queued already; return how many jobs the sweep had when it was submitted."""
        arrays = ", ".join(dict.fromkeys(task.array for task in queued))
        print(f"joins   array {arrays}, as it was submitted: {in_words(queued)}", flush=True)
        if not self._settings.wait:
            raise Submitted(self._how_to_come_back())
        self._watch(jobs, pending(jobs), {})
        self._before.update(task.array for task in queued)
        return max((array["jobs"] for array in self._submissions["arrays"]), default=len(jobs))

    def _submit(self, todo: Sequence[JobProgress], jobs: int) -> tuple[str, list[int]]:
        """Submit an array for some of so many jobs; return its number, and the slices of its tasks."""
        count = self._settings.tasks_for(jobs)
        slices = slices_of(todo, count)
        words = work_arguments(self._sweep_dir, self._given_up)
        name = self._submissions["job_name"]
        script, options = write_script(self._sweep_dir, name, self._settings, slices, count, words)
        try:
            array = submit(script, options)
        except QueueError as error:
            array = self._array_after(error, script)
        add_array(self._sweep_dir, self._submissions, array, len(slices), jobs)
        print(
            f"array   {array}: {many(len(slices), 'task')} for {many(len(todo), 'job')}; the logs are in "
            f"{display_path(self._sweep_dir / paths.SLURM_LOGS)}",
            flush=True,
        )
        return array, slices

    def _array_after(self, error: QueueError, script: Path) -> str:
        """Return the number of an array that SLURM has although sbatch failed, such as by a time-out.

        Raises:
            ConfigError: with the reason of sbatch, if it has none; what was written for it is removed.
        """
        reason = f"hydra/launcher=slurm: sbatch: {error}"
        try:
            queued = tasks_of(self._submissions["job_name"])
        except QueueError as second:
            raise ConfigError(
                f"{reason}; and squeue: {second}. Perhaps it is queued all the same: "
                f"{self._resume_command()} joins it then"
            ) from None
        if queued:
            return queued[0].array
        self._forget(script)
        raise ConfigError(reason) from None

    def _forget(self, *files: Path) -> None:
        """Remove what was written before a mistake came to light."""
        if not self._submissions["arrays"]:
            for path in (*files, self._sweep_dir / paths.SLURM):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                (self._sweep_dir / paths.SLURM_LOGS).rmdir()

    def _watch(self, jobs: Sequence[JobProgress], todo: Sequence[JobProgress], stamps: dict[int, Stamp]) -> None:
        with LiveTable(jobs, self._settings.tasks_for(len(todo))) as display:
            watch(todo, stamps, display, lambda: self._is_over(display), self._leave)

    def _is_over(self, display: LiveTable) -> bool:
        try:
            queued = tasks_of(self._submissions["job_name"])
        except QueueError:
            # It is down for a while, perhaps; the jobs may be running.
            return False
        display.queue(in_words(queued), all(task.state == "PENDING" for task in queued))
        # SLURM may have forgotten them for a moment, such as while its controller starts.
        self._empty_answers = 0 if queued else self._empty_answers + 1
        return self._empty_answers >= _EMPTY_ANSWERS

    def _queued(self) -> list[QueuedTask]:
        """Return the tasks of this sweep's arrays; wait for those of this command's own, which are about to end."""
        try:
            while queued := tasks_of(self._submissions["job_name"]):
                is_ending = all(task.array in self._before and task.state != "PENDING" for task in queued)
                if not is_ending:
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            return queued
        except QueueError as error:
            self._forget()
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
            f"  return  {self._resume_command()}"
        )

    def _resume_command(self) -> str:
        known = manifest.read(self._sweep_dir, ())
        assert known is not None
        return resume_command(self._sweep_dir, known.arguments)

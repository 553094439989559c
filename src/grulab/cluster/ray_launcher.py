"""The Ray launcher: a sweep as tasks of Ray, a slice each, which end with the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn

from grulab.cluster.launch import launch_pending, pending, slices_of
from grulab.cluster.logs import last_words
from grulab.cluster.ray_cluster import RayCluster, connect
from grulab.cluster.watch import stamp, watch
from grulab.cluster.work_arguments import work_arguments
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.sweep.job import Job
from grulab.sweep.job_progress import JobProgress
from grulab.sweep.live_table import LiveTable, many
from grulab.sweep.ray_settings import RaySettings


def launch(sweep_dir: Path, settings: RaySettings, jobs: Sequence[Job], given_up: set[int]) -> list[JobReturn]:
    """Run the jobs that are not done as tasks of Ray.

    Args:
        sweep_dir: the sweep's folder, which all nodes have to see.
        settings: of the launcher.
        jobs: of sweep.json.
        given_up: numbers of the jobs that have diverged in this command, which are not run again; it is extended.

    Returns:
        The result of each job.

    Raises:
        ConfigError: if there is no such cluster, it has no room for a task, or a node does not see the folder.
        Interrupted: after a signal, when the runs have saved themselves.
    """

    def run(everything: list[JobProgress]) -> None:
        cluster = connect(settings.address)
        room = cluster.room_for(settings)
        cluster.refuse_unseen_folder(sweep_dir, settings)
        _run(cluster, room, sweep_dir, settings, everything, given_up)

    return launch_pending(sweep_dir, jobs, given_up, run)


def tasks_at_once(settings: RaySettings) -> int:
    """Return the number of tasks that run at the same time.

    Raises:
        ConfigError: as :func:`launch`.
    """
    room = connect(settings.address).room_for(settings)
    return min(settings.tasks or room, room)


def _run(
    cluster: RayCluster,
    room: int,
    sweep_dir: Path,
    settings: RaySettings,
    jobs: Sequence[JobProgress],
    given_up: set[int],
) -> None:
    todo = pending(jobs)
    count = settings.tasks_for(len(jobs), room)
    slices = slices_of(todo, count)
    folder = sweep_dir.absolute() / paths.RAY_LOGS
    folder.mkdir(exist_ok=True)
    words = [*work_arguments(sweep_dir, given_up), f"+hydra.launcher.cores={settings.num_cpus}"]
    if settings.num_gpus is not None and settings.num_gpus < 1:
        # A share of a device is for one job.
        words.append("--slots=1")
    logs = {index: folder / f"{index}.log" for index in slices}
    commands = {index: ["work", str(sweep_dir.absolute()), "--slice", f"{index}/{count}", *words] for index in slices}
    stamps = {progress.job.number: stamp(progress.folder) for progress in todo}
    tasks: list[Any] = [cluster.start(commands[index], logs[index], settings) for index in slices]
    print(
        f"ray     {many(len(tasks), 'task')} for {many(len(todo), 'job')}, {min(room, len(tasks))} at a time; the "
        f"logs are in {display_path(folder)}",
        flush=True,
    )

    def leave() -> str:
        print("stopping: the runs save themselves", flush=True)
        ended = cluster.stop(tasks)
        return "the tasks have ended" if ended == len(tasks) else f"only {ended} of {len(tasks)} tasks have ended"

    with LiveTable(jobs, min(room, len(tasks))) as display:
        watch(todo, stamps, display, lambda: cluster.ended(tasks) == len(tasks), leave)
    if any(progress.state in ("pending", "interrupted") for progress in jobs):
        for cause in {result for task in tasks if isinstance(result := cluster.result(task), str)}:
            print(f"note: a task could not run: {cause}")
        for line in last_words(logs):
            print(f"note: task {line}")

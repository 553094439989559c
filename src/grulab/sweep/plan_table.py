"""``grulab train -m ... --plan``: the table of a sweep's jobs, without starting any."""

from rich.console import Console
from rich.table import Table

from grulab.config.overrides import key_of
from grulab.config.parameter_budget import parameter_count
from grulab.run_folder.paths import display_path
from grulab.sweep.compose_jobs import Sweep
from grulab.sweep.job import Job
from grulab.sweep.slurm_settings import SlurmSettings
from grulab.sweep.status import planned_status_of

_MOST_IN_A_TABLE = 1000


def print_plan(sweep: Sweep, console: Console) -> None:
    """Print each job with its overrides, number of parameters and state, and the number of jobs in each state."""
    if not sweep.jobs:
        console.print("The sweeper decides about the jobs as it goes on; there is no telling which they are.")
        if sweep.outlook:
            console.print(sweep.outlook, highlight=False)
        return
    statuses = [_status(sweep, job) for job in sweep.jobs]
    rows = [
        (
            str(job.number),
            " ".join(line for line in job.overrides if key_of(line) not in sweep.constant),
            f"{parameter_count(job.config):,}",
            status,
        )
        for job, status in zip(sweep.jobs, statuses, strict=True)
    ]
    if len(rows) > _MOST_IN_A_TABLE:
        # A table of ten thousand rows takes rich ten seconds.
        print("\n".join("  ".join(row) for row in rows))
    else:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("job", "overrides", "parameters", "state"):
            table.add_column(heading, justify="right" if heading == "parameters" else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table, highlight=False)
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
    console.print(f"\n{len(sweep.jobs)} jobs: {counts}", highlight=False)
    if sweep.outlook:
        console.print(sweep.outlook, highlight=False)
    if isinstance(sweep.settings, SlurmSettings):
        console.print(sweep.settings.in_words(len(sweep.jobs)), highlight=False)
    if sweep.constant:
        same = [line for line in sweep.jobs[0].overrides if key_of(line) in sweep.constant]
        console.print(f"in all of them: {' '.join(same)}", highlight=False, markup=False)
    console.print(f"folder: {display_path(sweep.folder)}", highlight=False, soft_wrap=True)


def _status(sweep: Sweep, job: Job) -> str:
    status = planned_status_of(sweep.folder / job.folder, job.config)
    return "new" if status == "pending" else status

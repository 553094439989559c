"""``grulab train -m ... --plan``: what a sweep would do."""

from rich.console import Console
from rich.table import Table

from grulab.config.compose import Job, Sweep
from grulab.run_folder.paths import shown
from grulab.sweep.status import standing_of


def print_plan(sweep: Sweep, console: Console) -> None:
    """Print each job, its number of parameters and its state, and how many there are to run."""
    if not sweep.jobs:
        console.print("The sweeper decides about the jobs as it goes on; there is no telling which they are.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("job", "overrides", "parameters", "state"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", overflow="fold")
    states = []
    for job in sweep.jobs:
        states.append(_state(sweep, job))
        overrides = [line for line in job.overrides if line.partition("=")[0] not in sweep.constant]
        table.add_row(str(job.number), " ".join(overrides), f"{job.config.parameters:,}", states[-1])
    console.print(table, highlight=False)
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print(f"\n{len(sweep.jobs)} jobs: {counts}", highlight=False)
    if sweep.constant:
        same = [line for line in sweep.jobs[0].overrides if line.partition("=")[0] in sweep.constant]
        console.print(f"in all of them: {' '.join(same)}", highlight=False, markup=False)
    console.print(f"folder: {shown(sweep.folder)}", highlight=False, soft_wrap=True)


def _state(sweep: Sweep, job: Job) -> str:
    state = standing_of(sweep.folder / job.folder, job.config)
    return "new" if state == "pending" else state

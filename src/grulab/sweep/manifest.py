"""sweep.json: the jobs of a sweep, written before the first of them starts."""

import json
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grulab.config.same_run import MAY_CHANGE, flatten, unflatten, what_differs
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError
from grulab.run_folder import paths
from grulab.run_folder.atomic import write_atomically
from grulab.run_folder.paths import display_path
from grulab.run_folder.stored_config import parse_stored
from grulab.run_folder.summary import git_state, read_summary, versions
from grulab.sweep.job import Job

_PUT_BACK = "put it back, or name another hydra.sweep.dir"
_SAY_SO = "put it back, or say so on the command line"


@dataclass(frozen=True)
class Manifest:
    """The content of sweep.json: the state at the start of the sweep.

    Attributes:
        arguments: the arguments of ``grulab train``, without the sweep's folder.
        jobs: all jobs; jobs that the sweeper chooses while it runs are added later.
        git: the commit of the code, as in a run's summary.json.
        versions: versions of Python and the libraries.
        created: time at which the sweep began, in ISO 8601.
    """

    arguments: list[str]
    jobs: list[Job]
    git: dict[str, Any] | None
    versions: dict[str, str]
    created: str


def new_manifest(arguments: Sequence[str], jobs: Sequence[Job]) -> Manifest:
    """Return the manifest of a sweep that begins now."""
    return Manifest(list(arguments), list(jobs), git_state(), versions(), time.strftime("%Y-%m-%dT%H:%M:%S%z"))


def write(sweep_dir: Path, manifest: Manifest) -> None:
    """Write sweep.json: the values that all jobs share once, then one line for each job."""
    configs = [flatten(job.config.to_dict()) for job in manifest.jobs]
    shared = {
        key: value
        for key, value in (configs[0] if configs else {}).items()
        if all(key in config and config[key] == value for config in configs)
    }
    head = {
        "created": manifest.created,
        "arguments": manifest.arguments,
        "git": manifest.git,
        "versions": manifest.versions,
        "config": shared,
    }
    lines = [
        {
            "number": job.number,
            "folder": job.folder,
            "overrides": job.overrides,
            "config_hash": job.config.hash(),
            "config": {key: value for key, value in config.items() if key not in shared},
        }
        for job, config in zip(manifest.jobs, configs, strict=True)
    ]
    rows = ",\n".join(f"    {json.dumps(line)}" for line in lines)
    text = json.dumps(head, indent=2).removesuffix("\n}")
    write_atomically(sweep_dir / paths.SWEEP, f'{text},\n  "jobs": [\n{rows}\n  ]\n}}\n')


def read(sweep_dir: Path) -> Manifest | None:
    """Return the content of sweep.json, or None if the file does not exist.

    Raises:
        ConfigError: if it cannot be read.
    """
    path = sweep_dir / paths.SWEEP
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs = [_job(content, row, path) for row in content["jobs"]]
        return Manifest(content["arguments"], jobs, content["git"], content["versions"], content["created"])
    except FileNotFoundError:
        return None
    except ConfigError:
        # The file is whole, but for another version of grulab or for a task that is not installed here.
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{path}: cannot be read ({what}); remove it, and give the sweep's command once more with its "
            f"hydra.sweep.dir={display_path(sweep_dir)}: jobs that are done stay done"
        ) from None


def find(sweep_dir: Path, number: int) -> Job | None:
    """Return one job of a sweep, or None if sweep.json is missing or does not list it."""
    path = sweep_dir / paths.SWEEP
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return next((_job(content, row, path) for row in content["jobs"] if row["number"] == number), None)


def was_lost(sweep_dir: Path, jobs: Sequence[Job]) -> bool:
    """Return whether a folder without sweep.json holds folders of these jobs, and no folders of other jobs.

    Raises:
        ConfigError: if a job's folder holds another run.
    """
    folders = {job.folder.split("/")[0] for job in jobs}
    if not sweep_dir.is_dir() or not any((sweep_dir / job.folder).is_dir() for job in jobs):
        return False
    if any(path.is_dir() and path.name not in folders | {"figures"} for path in sweep_dir.iterdir()):
        return False
    for job in jobs:
        summary = read_summary(sweep_dir / job.folder)
        if summary is not None:
            config = parse_stored(summary["config"], sweep_dir / job.folder / paths.SUMMARY)
            found = Job(job.number, job.folder, job.overrides, config)
            refuse_another_sweep(sweep_dir, [found], [job], asked=MAY_CHANGE)
    return True


def refuse_another_sweep(
    sweep_dir: Path, before: Sequence[Job], after: Sequence[Job], asked: Container[str] = ()
) -> None:
    """Check that a command continues the same sweep, with the same jobs.

    Args:
        sweep_dir: the sweep's folder.
        before: the jobs in the folder.
        after: the jobs of the command.
        asked: keys that the command overrides; those in ``MAY_CHANGE`` may have another value.

    Raises:
        ConfigError: with a line for each difference.
    """
    where = f"the sweep in {display_path(sweep_dir)}"
    if len(before) != len(after):
        raise ConfigError(
            f"{where} has {len(before)} jobs, and this command makes {len(after)}; name another hydra.sweep.dir"
        )
    differences: dict[tuple[str, str, str], list[int]] = {}
    for old, new in zip(before, after, strict=True):
        old_values, new_values = flatten(old.config.to_dict()), flatten(new.config.to_dict())
        strict = what_differs(old_values, new_values)
        for key in sorted(old_values.keys() | new_values.keys()):
            if old_values.get(key) == new_values.get(key) or (key in asked and key not in strict):
                continue
            change = (key, shown_value(new_values.get(key)), shown_value(old_values.get(key)))
            differences.setdefault(change, []).append(new.number)
    lines = []
    for (key, new_value, old_value), numbers in differences.items():
        remedy = _SAY_SO if key in MAY_CHANGE else _PUT_BACK
        jobs = "in every job" if len(numbers) == len(after) else f"in {len(numbers)} jobs, the first is {numbers[0]}"
        lines.append(f"{key}={new_value}: {where} has {old_value} ({jobs}); {remedy}")
    for old, new in zip(before, after, strict=True):
        if not lines and old.folder != new.folder:
            lines.append(f"job {old.number}: {where} has it in {old.folder}, not in {new.folder}; {_PUT_BACK}")
    if lines:
        raise ConfigError("\n".join(lines))


def what_changed(manifest: Manifest) -> list[str]:
    """Return one line for each change of the code or of a library's version since the sweep began."""
    lines = []
    now = git_state()
    if manifest.git != now:
        lines.append(f"the code has changed since the sweep began: it was {_state(manifest.git)}, now {_state(now)}")
    for name, version in versions().items():
        if manifest.versions.get(name) != version:
            lines.append(
                f"{name} has changed since the sweep began: it was {manifest.versions.get(name)}, now {version}"
            )
    return lines


def _job(content: Mapping[str, Any], row: Mapping[str, Any], path: Path) -> Job:
    config = parse_stored(unflatten(content["config"] | row["config"]), path)
    return Job(row["number"], row["folder"], row["overrides"], config)


def _state(git: Mapping[str, Any] | None) -> str:
    if git is None:
        return "outside a checkout"
    return f"commit {str(git['commit'])[:10]}" + (" with changes" if git["changed"] else "")

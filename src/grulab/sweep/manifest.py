"""sweep.json: the jobs of a sweep, written before the first of them starts."""

import json
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from grulab.config.overrides import is_about_hydra
from grulab.config.same_run import MAY_CHANGE, flatten, unflatten, what_differs
from grulab.config.validation_messages import dotted, remedy, shown_value
from grulab.config_error import ConfigError
from grulab.field_types import Plain
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.run_folder.stored_config import parse_stored
from grulab.run_folder.summary import git_state, read_summary, versions
from grulab.sweep.job import Job
from grulab.sweep.job_folders import is_inside
from grulab.sweep.stored_arguments import MAX_CHARACTERS
from grulab.system.atomic import write_atomically
from grulab.system.printable import printable
from grulab.system.regular_file import read_regular

_MAX_BYTES = 2**26
_PUT_BACK = "put it back, or begin another sweep with grulab train -m"
_SAY_SO = "put it back, or say so on the command line"


class Design(TypedDict):
    """How the jobs of a sweep are chosen and compared; see conf/hydra/sweeper/."""

    kind: Literal["grid", "race", "search", "other"]
    tune: list[str]
    rungs: list[Annotated[int, Field(ge=1)]] | None
    indifference: float | None
    seeds: list[Annotated[int, Field(ge=0)]] | None


GRID: Design = {"kind": "grid", "tune": [], "rungs": None, "indifference": None, "seeds": None}


class Addition(TypedDict):
    """Jobs that were added to a sweep."""

    created: str
    arguments: list[str]
    jobs: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Manifest:
    """The content of sweep.json: the state at the start of the sweep.

    Attributes:
        arguments: the arguments of ``grulab train``, without the sweep's folder.
        jobs: all jobs; jobs that the sweeper chooses while it runs are added later.
        git: the commit of the code, as in a run's summary.json.
        versions: versions of Python and the libraries.
        created: time at which the sweep began, in ISO 8601.
        design: how the jobs are chosen and compared.
        added: for each time that jobs were added: when, by which arguments, and how many.
    """

    arguments: list[str]
    jobs: list[Job]
    git: dict[str, Any] | None
    versions: dict[str, str]
    created: str
    design: Design
    added: list[Addition]


class _Row(TypedDict):
    number: Annotated[int, Field(ge=0)]
    folder: str
    overrides: list[str]
    config_hash: str
    config: dict[str, Plain]


class _Git(TypedDict):
    commit: str | None
    changed: bool


class _Schema(TypedDict):
    created: str
    arguments: list[str]
    git: _Git | None
    versions: dict[str, str]
    # Sweeps of earlier versions have neither.
    design: NotRequired[Design]
    added: NotRequired[list[Addition]]
    config: dict[str, Plain]
    jobs: list[_Row]


_SCHEMA: TypeAdapter[_Schema] = TypeAdapter(_Schema)


def new_manifest(arguments: Sequence[str], jobs: Sequence[Job], design: Design) -> Manifest:
    """Return the manifest of a sweep that begins now."""
    return Manifest(list(arguments), list(jobs), git_state(), versions(), _now(), design, [])


def grown(before: Manifest, arguments: Sequence[str], jobs: Sequence[Job], design: Design) -> Manifest:
    """Return the manifest of a sweep that goes on, perhaps with more jobs."""
    added = list(before.added)
    if before.jobs and len(jobs) > len(before.jobs):
        added.append({"created": _now(), "arguments": list(arguments), "jobs": len(jobs) - len(before.jobs)})
    # Another sweeper chooses its jobs while it runs.
    jobs = list(jobs) or before.jobs
    return replace(before, arguments=list(arguments), jobs=jobs, design=design, added=added)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


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
        "design": manifest.design,
        "added": manifest.added,
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
    content = f'{text},\n  "jobs": [\n{rows}\n  ]\n}}\n'
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"{len(configs):,} jobs: {paths.SWEEP} would have {len(content):,} bytes, and may have {_MAX_BYTES:,}; "
            "make several sweeps of them"
        )
    write_atomically(sweep_dir / paths.SWEEP, content)


def read(sweep_dir: Path, numbers: Container[int] | None = None) -> Manifest | None:
    """Return the content of sweep.json, or None if the file does not exist.

    Args:
        sweep_dir: the sweep's folder.
        numbers: of the jobs to read; None reads all.

    Raises:
        ConfigError: if it cannot be read, or holds what no sweep writes.
    """
    content = _content(sweep_dir)
    if content is None:
        return None
    path = sweep_dir / paths.SWEEP
    jobs = [_job(content, row, path) for row in content["jobs"] if numbers is None or row["number"] in numbers]
    return Manifest(
        content["arguments"],
        jobs,
        cast(Any, content["git"]),
        content["versions"],
        content["created"],
        content.get("design", GRID),
        content.get("added", []),
    )


def find(sweep_dir: Path, number: int) -> Job | None:
    """Return one job of a sweep, or None if sweep.json is missing or does not list it.

    Raises:
        ConfigError: as :func:`read`.
    """
    content = _content(sweep_dir)
    rows = content["jobs"] if content else []
    path = sweep_dir / paths.SWEEP
    return next((_job(content, row, path) for row in rows if content and row["number"] == number), None)


def _content(sweep_dir: Path) -> _Schema | None:
    path = sweep_dir / paths.SWEEP
    try:
        content = _SCHEMA.validate_python(json.loads(read_regular(path, _MAX_BYTES)), strict=True)
        _refuse_odd_rows(content["jobs"])
        texts = [*content["arguments"], *content.get("design", GRID)["tune"]]
        if any(word != printable(word) for word in texts):
            raise ValueError("an argument has characters that cannot be shown")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise ConfigError(
            f"{path}: may not be read by this user; change its permissions, or copy the folder"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({_cause(error)}); if it is a sweep's, move it away, and give the sweep's "
            f"command once more with its hydra.sweep.dir={display_path(sweep_dir)}: jobs that are done stay done"
        ) from None
    return content


def _cause(error: Exception) -> str:
    if isinstance(error, ValidationError):
        mistake: dict[str, Any] = dict(error.errors()[0])
        return f"{dotted(mistake['loc'])}: {remedy(mistake)}"
    if isinstance(error, OSError):
        return str(error.strerror)
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _refuse_odd_rows(rows: Sequence[_Row]) -> None:
    """Check what the rows of the jobs say beside their configurations.

    Raises:
        ValueError: if numbers or folders repeat, a folder lies elsewhere, or an override is a flag or Hydra's own.
    """
    for name, values in (("number", [row["number"] for row in rows]), ("folder", [row["folder"] for row in rows])):
        if len(set(values)) < len(values):
            raise ValueError(f"two jobs have the same {name}")
    if odd := next((row for place, row in enumerate(rows) if row["number"] != place), None):
        raise ValueError(f"job {odd['number']} is not in its place: the jobs are numbered from 0")
    for row in rows:
        if not is_inside(row["folder"]) or row["folder"] != printable(row["folder"]):
            raise ValueError(f"job {row['number']} has the folder {printable(row['folder'])}")
        # The launcher composes none that differ from those of the command; a report prints them.
        if foreign := next((line for line in row["overrides"] if line.startswith("-") or is_about_hydra(line)), None):
            raise ValueError(f"job {row['number']} has the override {printable(foreign)}")
    if any(len(line) > MAX_CHARACTERS or line != printable(line) for row in rows for line in row["overrides"]):
        raise ValueError("an override is too long, or has characters that cannot be shown")


def was_lost(sweep_dir: Path, jobs: Sequence[Job]) -> bool:
    """Return whether a folder without sweep.json holds folders of these jobs, and no folders of other jobs.

    Raises:
        ConfigError: if a job's folder holds another run.
    """
    folders = {job.folder.split("/")[0] for job in jobs}
    if not sweep_dir.is_dir() or not any((sweep_dir / job.folder).is_dir() for job in jobs):
        return False
    if any(
        path.is_dir() and path.name not in folders | {paths.FIGURES, paths.MEANS, paths.SLURM_LOGS, paths.RAY_LOGS}
        for path in sweep_dir.iterdir()
    ):
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
        if key == "data.content":
            # Nobody has written this key: the file holds something else.
            first = next(job for job in after if job.number == numbers[0])
            place = flatten(first.config.to_dict()).get("data.path")
            lines.append(
                f"data.path={shown_value(place)}: holds other sequences than those of {where} ({jobs}; content "
                f"{new_value[:8]}, not {old_value[:8]}); put the file back, or begin another sweep with "
                "grulab train -m"
            )
            continue
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
        was = printable(_state(manifest.git))
        lines.append(f"the code has changed since the sweep began: it was {was}, now {_state(now)}")
    for name, version in versions().items():
        if manifest.versions.get(name) != version:
            was = printable(str(manifest.versions.get(name)))
            lines.append(f"{name} has changed since the sweep began: it was {was}, now {version}")
    return lines


def _job(content: _Schema, row: _Row, path: Path) -> Job:
    try:
        values = unflatten(content["config"] | row["config"])
    except TypeError:
        raise ConfigError(f"{path}: job {row['number']} has a key that is both a value and a group") from None
    config = parse_stored(values, path)
    if row["config_hash"] != config.hash():
        raise ConfigError(f"{path}: job {row['number']} is damaged: its config_hash is not that of its config")
    return Job(row["number"], row["folder"], row["overrides"], config)


def _state(git: Mapping[str, Any] | None) -> str:
    if git is None:
        return "outside a checkout"
    return f"commit {str(git['commit'])[:10]}" + (" with changes" if git["changed"] else "")

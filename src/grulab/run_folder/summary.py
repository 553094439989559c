"""summary.json: the configuration, the results and the status of a run."""

import hashlib
import json
import platform
import subprocess
import time
import traceback
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, NotRequired, Self, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from grulab.config.schema import Config, Metric
from grulab.field_types import Plain
from grulab.run_folder import paths
from grulab.run_folder.paths import display_path
from grulab.system.atomic import write_atomically
from grulab.system.regular_file import MAX_JSON_BYTES, read_regular

_LIBRARIES = (
    "grulab",
    "torch",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "tensorboard",
    "numpy",
)


_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Error(TypedDict):
    type: str
    message: str
    traceback: str


class _Baseline(TypedDict):
    __pydantic_config__ = ConfigDict(allow_inf_nan=False)  # type: ignore[misc]

    name: str
    val: float
    test: float
    only_gru: _Count
    only_baseline: _Count
    sequences: Annotated[int, Field(ge=1, lt=2**53)]


_Class = TypedDict(
    "_Class", {"class": str, "precision": float, "recall": float, "f1": float, "support": _Count}
)  # fmt: skip


class _Schema(TypedDict):
    """The entries that are read back, by a resume or a report; the others may be of any kind."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)  # type: ignore[misc]

    status: Literal["running", "interrupted", "failed", "done"]
    config: dict[str, Plain | dict[str, Plain]]
    monitor: Metric
    metrics: dict[Annotated[str, Field(pattern="/")], float]
    error: NotRequired[_Error | None]
    parameters: NotRequired[_Count | None]
    backend: NotRequired[Literal["fused", "torch", "padded"] | None]
    step: NotRequired[Literal["fused", "autograd"] | None]
    seconds: NotRequired[float]
    started: NotRequired[str]
    resumed: NotRequired[_Count]
    chance: NotRequired[float]
    ceiling: NotRequired[float | None]
    best_epoch: NotRequired[_Count]
    sequences_by_length: NotRequired[dict[str, _Count]]
    epochs: NotRequired[_Count]
    sequences_per_second: NotRequired[float]
    padding: NotRequired[float]
    baselines: NotRequired[list[_Baseline]]
    classes: NotRequired[list[_Class]]
    confusion_matrix: NotRequired[list[list[_Count]]]


_SCHEMA: TypeAdapter[_Schema] = TypeAdapter(_Schema)
# What a run has written when it is done.
_KEYS_OF_A_RESULT = {"parameters", "chance", "ceiling", "best_epoch", "epochs", "sequences_per_second", "padding"}
_METRICS_OF_A_RESULT = {"val/loss", "val/accuracy", "test/loss", "test/accuracy"}


class Summary:
    """The content of a run's summary.json, written when the run begins and when it ends for any reason.

    A context manager: a normal exit sets the status "done", an exception "failed" with its traceback, and Ctrl-C or
    a signal "interrupted".

    Args:
        run_dir: the run's folder.
        config: the run's configuration.
    """

    def __init__(self, run_dir: Path, config: Config) -> None:
        self.path = run_dir / paths.SUMMARY
        self._began = time.perf_counter()
        before = read_summary(run_dir) or {}
        self._seconds_before = before.get("seconds", 0.0)
        self.content: dict[str, Any] = {
            "status": "running",
            "name": config.name,
            "config": config.to_dict(),
            "config_hash": config.hash(),
            "seed": config.seed,
            "monitor": config.checkpoint.monitor,
            "metrics": {},
            "parameters": None,
            "backend": before.get("backend"),
            # Of a run of an earlier version.
            "step": before.get("step", "autograd" if before else None),
            "seconds": 0.0,
            "started": before.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
            "resumed": before.get("resumed", 0) + 1 if before else 0,
            "versions": versions(),
            "git": git_state(),
            "error": None,
        }

    def update(self, **values: Any) -> None:
        """Set top-level values and write the file."""
        seconds = round(self._seconds_before + time.perf_counter() - self._began, 3)
        content = self.content | values | {"seconds": seconds}
        # Values that cannot be written stay out of the later writes.
        self.content = write_summary(self.path.parent, content)

    def __enter__(self) -> Self:
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status, cause = "done", None
        if error is not None:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            if status == "failed":
                error.add_note(f"the traceback is in {display_path(self.path)}, and GRULAB_TRACEBACK=1 shows it here")
            cause = {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error)),
            }
        try:
            self.update(status=status, error=cause)
        except OSError:
            # The disk may be full or gone; that error is already raised. "running" without a lock means interrupted.
            if error is None:
                raise


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """Return the content of a run's summary.json, or None if the file is missing, invalid or damaged."""
    try:
        content: Any = json.loads(read_regular(run_dir / paths.SUMMARY, MAX_JSON_BYTES))
        _SCHEMA.validate_python(content, strict=True)
    # A deeply nested file makes the reader of JSON raise RecursionError.
    except (OSError, ValueError, ValidationError, RecursionError):
        return None
    if "checksum" in content and content["checksum"] != _checksum(content):
        return None
    is_whole = content.keys() >= _KEYS_OF_A_RESULT and content["metrics"].keys() >= _METRICS_OF_A_RESULT
    is_whole &= content.get("parameters") is not None
    return cast(dict[str, Any], content) if is_whole or content["status"] != "done" else None


def write_summary(run_dir: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write a run's summary.json, with a checksum: a flipped bit in a result would look like another result.

    Returns:
        The content with its checksum.
    """
    content = content | {"checksum": _checksum(content)}
    write_atomically(run_dir / paths.SUMMARY, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return content


def _checksum(content: dict[str, Any]) -> str:
    """Return 16 hexadecimal digits for everything but the checksum itself. Who edits the file may remove them."""
    text = json.dumps({key: value for key, value in content.items() if key != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mark_failed(run_dir: Path, config: Config, kind: str, message: str) -> None:
    """Set the status "failed" in the summary.json of a run that was killed or never began.

    Args:
        run_dir: the run's folder, which this process has locked.
        config: the run's configuration.
        kind: the type of the error, such as "Killed".
        message: what happened.
    """
    content = read_summary(run_dir) or Summary(run_dir, config).content
    error = {"type": kind, "message": message, "traceback": ""}
    write_summary(run_dir, content | {"status": "failed", "error": error})


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect the results."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


@cache
def git_state() -> dict[str, Any] | None:
    """Return the commit of this code and whether files were changed since, or None outside a checkout.

    Cached per process, and inherited by the jobs of a sweep, because they run the code that was imported before.
    """
    # An installed wheel is not in a checkout of grulab, but may lie inside another git repository.
    root = Path(__file__).parents[3]
    if not (root / "pyproject.toml").is_file():
        return None
    try:
        status = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    commit = next((line.split()[-1] for line in status if line.startswith("# branch.oid")), None)
    return {"commit": commit, "changed": any(not line.startswith("#") for line in status)}

"""A connection to a Ray cluster, or a Ray of the command's own, of which no process outlives it."""

import atexit
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from grulab.cluster import ray_guard, ray_task
from grulab.config_error import ConfigError
from grulab.sweep.ray_settings import RaySettings

_SECONDS_TO_READ = 30
_SECONDS_TO_STOP = 75
_SECONDS_TO_ANSWER = 10


class RayCluster:
    """A running Ray; :func:`connect` makes one.

    Args:
        ray: the module.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def room_for(self, settings: RaySettings) -> int:
        """Return the number of tasks that can run at the same time.

        Raises:
            ConfigError: if the cluster has no node with room for one.
        """
        room = sum(room_on(node, settings) for node in self._nodes())
        if not room:
            gpus = f" and hydra.launcher.num_gpus={settings.num_gpus:g}" if settings.num_gpus else ""
            raise ConfigError(f"hydra.launcher.num_cpus={settings.num_cpus}{gpus}: no node of this Ray has so many")
        return room

    def refuse_unseen_folder(self, folder: Path, settings: RaySettings) -> None:
        """Check that each node with room for a task sees a folder: a file that is written here has to be there too.

        Raises:
            ConfigError: naming a node that does not.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        token, path = secrets.token_hex(8), folder.absolute() / f".seen-by-all-{os.getpid()}"
        path.write_text(token)
        try:
            read = self._ray.remote(ray_task.read)
            nodes = [node for node in self._nodes() if room_on(node, settings)]
            answers = [
                read.options(
                    num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(str(path))
                for node in nodes
            ]
            for node, answer in zip(nodes, answers, strict=True):
                try:
                    seen = self._ray.get(answer, timeout=_SECONDS_TO_READ)
                except Exception as error:
                    raise ConfigError(
                        f"hydra/launcher=ray: node {node['NodeManagerHostname']}: {_first_line(error)}"
                    ) from None
                if seen != token:
                    raise ConfigError(
                        f"hydra.sweep.dir={folder}: the node {node['NodeManagerHostname']} does not see this folder; "
                        "name one on a file system that all nodes share"
                    )
        finally:
            path.unlink(missing_ok=True)

    def start(self, command: Sequence[str], log: Path, settings: RaySettings) -> Any:
        """Start a task; return what stands for its result."""
        options: dict[str, Any] = {"num_cpus": settings.num_cpus, "max_retries": settings.max_retries}
        # Also for the error of a process that was killed.
        options["retry_exceptions"] = [RuntimeError]
        if settings.num_gpus:
            options["num_gpus"] = settings.num_gpus
        return self._ray.remote(ray_task.work).options(**options).remote(list(command), str(log))

    def ended(self, tasks: Sequence[Any]) -> int:
        """Return how many of some tasks have ended."""
        done, _ = self._ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
        return len(done)

    def result(self, task: Any) -> int | str:
        """Return the exit code of a task that has ended, or the cause if it could not run."""
        try:
            return int(self._ray.get(task))
        except Exception as error:
            return _first_line(error)

    def stop(self, tasks: Sequence[Any]) -> int:
        """Stop tasks, whose runs save themselves; return how many have ended within a minute or so."""
        for task in tasks:
            self._ray.cancel(task, force=False)
        done, _ = self._ray.wait(list(tasks), num_returns=len(tasks), timeout=_SECONDS_TO_STOP)
        return len(done)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]


def room_on(node: dict[str, Any], settings: RaySettings) -> int:
    """Return the number of tasks that a node can run at the same time."""
    have = node["Resources"]
    fits = [int(have.get("CPU", 0) // settings.num_cpus)]
    if settings.num_gpus:
        fits.append(int(have.get("GPU", 0) / settings.num_gpus))
    return min(fits)


@cache
def connect(address: str | None) -> RayCluster:
    """Return a connection to a cluster, the same for all launches of this command.

    Args:
        address: of a running cluster; None starts one on this machine, which ends with this process.

    Raises:
        ConfigError: if there is no cluster at the address, or Ray does not start.
    """
    # Ray asks its makers how it is used, and prints how to prevent it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings: dict[str, Any] = {"address": address}
    _refuse_silent_address(address)
    if address is None:
        # Its sockets lie there, whose paths have at most 107 bytes.
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        guard = subprocess.Popen(
            [sys.executable, "-P", ray_guard.__file__, folder], stdin=subprocess.PIPE, start_new_session=True
        )
        atexit.register(_close, guard)
        # With Ray's own 15 a job gets next to nothing beside any other program; the other launchers add nothing.
        os.environ.setdefault("RAY_worker_niceness", "0")
        if os.environ.pop("RAY_LOG_TO_STDERR", None) == "1":
            print("note: RAY_LOG_TO_STDERR=1 has no effect: by their logs this Ray's processes are found at the end")
        settings = {"address": "local", "_temp_dir": folder, "include_dashboard": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            with _quiet_stderr():
                ray.init(log_to_driver=False, configure_logging=False, **settings)
        except Exception as error:
            where = f"hydra.launcher.address={address}" if address else "hydra/launcher=ray"
            raise ConfigError(f"{where}: {_first_line(error)}") from None
    # Before the guard, since the handlers run in the reverse order.
    atexit.register(ray.shutdown)
    return RayCluster(ray)


def _refuse_silent_address(address: str | None) -> None:
    """Check that something answers at an address: Ray itself would try for minutes.

    Raises:
        ConfigError: if nothing does.
    """
    host, colon, port = (address or "").rpartition(":")
    if not colon or "://" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"hydra.launcher.address={address}: no Ray answers there ({cause})") from None


def _close(guard: "subprocess.Popen[bytes]") -> None:
    """Let the guard end what is left, and wait for it."""
    assert guard.stdin is not None
    guard.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        guard.wait(20)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send what native code writes to standard error nowhere: of a wrong address Ray tells twenty times."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

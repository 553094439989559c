"""A real SLURM on one node, for studies and tests; slurm.sh has what it is made of."""

import os
import platform
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SCRIPT = Path(__file__).with_name("slurm.sh")
# Where `slurm.sh fetch` has unpacked SLURM's packages.
ROOT = "SLURM_ROOT"


class Cluster:
    """A running cluster.

    Args:
        folder: of its state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root = os.environ[ROOT]
        libraries = f"{root}/usr/lib/{platform.machine()}-linux-gnu"
        self.environment = {
            "PATH": f"{root}/usr/sbin:{root}/usr/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/slurm-wlm",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def do(self, *command: str) -> str:
        """Run a command of SLURM; return its output.

        Raises:
            AssertionError: if it fails.
        """
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def tasks(self, state: str = "") -> list[str]:
        """Return the names of the tasks that are in a state such as RUNNING, or in any."""
        options = [f"--states={state}"] if state else []
        return self.do("squeue", "--noheader", "--array", "--format=%A", *options).split()

    def batch_processes(self) -> list[int]:
        """Return the process ids of the running tasks' batch processes, which are ``grulab work``."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
                is_child_of_slurm = b"slurmstepd" in Path(f"/proc/{parent}/cmdline").read_bytes()
                if b"work" in words and b"grulab" in words and is_child_of_slurm:
                    found.append(int(path.name))
        return sorted(found)

    def jobs_of(self, batch: int) -> list[int]:
        """Return the process ids of the jobs that a task runs."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(path.read_text().rsplit(")", 1)[1].split()[1]) == batch:
                    found.append(int(path.parent.name))
        return found

    def kill_node(self) -> None:
        """Kill slurmd with -9."""
        os.kill(int((self.folder / "slurmd.pid").read_text()), signal.SIGKILL)

    def start_node(self) -> None:
        """Start slurmd after it was killed."""
        subprocess.run([_SCRIPT, "node", self.folder], check=True, timeout=60)

    def wait_until_empty(self, seconds: float = 120) -> None:
        """Wait until no task is queued or running.

        Raises:
            AssertionError: if that takes longer.
        """
        deadline = time.monotonic() + seconds
        while self.tasks():
            assert time.monotonic() < deadline, self.do("squeue")
            time.sleep(0.1)


@contextmanager
def one_node(folder: Path) -> Iterator[Cluster]:
    """Start a cluster, and stop it at the end."""
    # Another cluster may be on the same machine.
    environment = os.environ | {"SLURM_PORT": str(_free_port())}
    subprocess.run([_SCRIPT, "start", folder], check=True, timeout=60, env=environment)
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        with suppress(AssertionError):
            cluster.do("scancel", "--me")
            cluster.wait_until_empty(30)
        subprocess.run([_SCRIPT, "stop", folder], check=False, timeout=60)


def _free_port() -> int:
    """Return the first of two free ports."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            with suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 1))
                return port

"""A signal while a command starts: one line, the right exit code, no traceback."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from grulab.system.quick_import import quick_import
from tests.conftest import SMALL, grulab

# The grulab program that signals itself when it looks for a module, as "MODULE SIGNAL".
SIGNALLED = """
import os, signal, sys
from grulab.cli import main

module, name = %r.split()

class Signaller:
    def find_spec(self, fullname, path, target=None):
        if fullname == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), getattr(signal, name))

sys.meta_path.insert(0, Signaller())
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_imports_are_done(signum: signal.Signals) -> None:
    """Its exception inside a native module's initialization would become an ImportError."""
    events = []

    def note(*_: object) -> None:
        events.append("signal")

    before = signal.signal(signum, note)
    # Another thread must not receive it instead.
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with quick_import():
            os.kill(os.getpid(), signum)
            time.sleep(0.05)
            events.append("imported")
        assert signal.getsignal(signum) == note
    finally:
        signal.signal(signum, before)
        done.set()
        thread.join()
    assert events == ["imported", "signal"]


@pytest.mark.parametrize("module", ["hydra", "torch", "torch.nn", "lightning"])
def test_a_signal_during_the_start_is_one_line(tmp_path: Path, module: str) -> None:
    process = grulab(
        tmp_path,
        "train",
        *SMALL,
        "trainer.max_epochs=5000",
        "hydra.run.dir=run",
        program=SIGNALLED % f"{module} SIGINT",
    )
    assert (process.returncode, process.stdout) == (130, "")
    assert process.stderr == "grulab: interrupted before the run had begun\n"
    assert list(tmp_path.iterdir()) == []


def test_a_termination_during_the_start_has_its_exit_code(tmp_path: Path) -> None:
    process = grulab(tmp_path, "train", *SMALL, "hydra.run.dir=run", program=SIGNALLED % "torch.nn SIGTERM")
    assert (process.returncode, process.stdout, process.stderr) == (143, "", "")

"""The command line: its subcommands and exit codes. A subcommand imports large libraries only when it needs them."""

import difflib
import errno
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TextIO

from grulab.system.printable import printable
from grulab.system.signals import COME_AGAIN

USAGE = """\
grulab: what do hidden size, depth and direction buy a GRU on variable-length sequences?

  grulab train [OVERRIDES]        train one GRU
  grulab train -m [OVERRIDES]     sweep over comma-separated values
  grulab resume DIR [OVERRIDES]   go on with a run where it stopped
  grulab report DIR               leaderboard and figures of a sweep
  grulab work SWEEP --slice I/N   a slice of a sweep, for clusters; see docs/clusters.md
  grulab board [DIR]              TensorBoard on the newest sweep, or on the one in a folder
  grulab trace DIR_OR_CKPT        show what a trained GRU does with a sequence

  grulab inspect FILE             what is in a file of your own sequences; then grulab train data=files data.path=FILE
  grulab evaluate CKPT            how good a trained GRU is, also on another file: data.path=FILE
  grulab predict CKPT FILE        classify the sequences of a file
  grulab export CKPT FILE.onnx    write a trained GRU for places without torch

  grulab doctor                   what this machine can do, checked: devices, speed, what to use here

  grulab train --help lists every key.
  Tab completion: eval "$(grulab -sc install=bash)"
"""
# The subcommands; each is a module of grulab.commands.
VERBS = ("train", "resume", "report", "board", "trace", "inspect", "evaluate", "predict", "export", "doctor", "work")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 1 failed, 2 invalid input, 130 or 143 interrupted."""
    # Processes that a library starts would import modules from the current folder, which may be somebody else's.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    _open_closed_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if odd := _odd_word([*arguments, _working_directory()]):
        return _refuse(odd)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    verb, rest = arguments[0], arguments[1:]
    if verb in ("-sc", "--shell-completion"):
        verb, rest = "train", _completion(arguments)
        if not rest:
            return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean grulab {near[0]}?" if near else f"choose from {', '.join(VERBS)}"
        return _refuse(f"{verb}: no such command; {hint}")
    return _guarded(verb, rest)


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""


def _odd_word(words: Sequence[str]) -> str | None:
    """Return what is odd in the arguments and the working directory, which come last, or None."""
    if not words[-1]:
        return "the working directory does not exist any more; change to another one"
    odd = next((word for word in words if printable(word) != word), None)
    return odd and f"{printable(odd)}: has a line break, a control character or a byte outside UTF-8"


def _open_closed_streams() -> None:
    """Replace standard streams that the caller has closed (``>&-``), which Python represents by None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def _guarded(verb: str, arguments: list[str]) -> int:
    try:
        return _run(verb, arguments)
    except KeyboardInterrupt:
        print("grulab: interrupted" + " before the run had begun" * (verb == "train"), file=sys.stderr)
        return COME_AGAIN if verb == "work" else 130
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            print(f"grulab: {exit_.code}", file=sys.stderr)
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)


def _run(verb: str, arguments: list[str]) -> int:
    from grulab.config_error import ConfigError
    from grulab.system.quick_import import import_numpy_with_one_thread, quick_import
    from grulab.system.signals import Interrupted, handle_defaults

    # No traceback if a log line cannot be written: the reader of the pipe (head) has exited, or the disk is full.
    logging.raiseExceptions = False
    terminated = threading.Event()
    # Nothing has begun, and for a slice this is as good as saved.
    code = COME_AGAIN if verb == "work" else 128 + signal.SIGTERM

    def terminate(signum: int, frame: FrameType | None) -> None:
        terminated.set()
        sys.exit(code)

    # Until the run installs its own handlers, a termination signal exits with 143.
    handle_defaults(terminate)
    try:
        with quick_import():
            import_numpy_with_one_thread()
            command = import_module(f"grulab.commands.{verb}")
        command.main(arguments)
    except ConfigError as error:
        return _refuse(str(error))
    except Interrupted as error:
        return error.exit_code
    except Exception as error:
        # The exception of the handler may have become another one in the library that it interrupted.
        return code if terminated.is_set() else _fail(error)
    return 0


def _fail(error: Exception) -> int:
    """Print one line for an error; the traceback is in run.log, and GRULAB_TRACEBACK=1 shows it in the terminal."""
    if os.environ.get("GRULAB_TRACEBACK"):
        raise error
    if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout):
        # The reader of the output (head) has what it wanted.
        return 1
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return _refuse(f"{str(error.filename)[:100]}...: the name of a folder or file is too long; choose another")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        return _refuse(f"{error.filename}: {error.strerror}; change its permissions, or copy the folder")
    # Some error messages of torch have a C++ stack below their first line.
    lines = [*str(error).splitlines()[:1], *getattr(error, "__notes__", [])]
    return _refuse(f"{type(error).__name__}: " + "\n".join(lines), 1)


def _is_closed(stream: TextIO) -> bool:
    """Return whether the reader of a stream is gone; nothing more is written to it then."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True


def _completion(arguments: list[str]) -> list[str]:
    """Print the completions of a subcommand; return the arguments for Hydra's completion, or [] if there are none."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if not any(word.startswith("query=") for word in arguments):
        return arguments
    if len(words) < 3:
        print(" ".join(VERBS))
        return []
    if words[1] != "train":
        return []
    # Hydra does not know the subcommands.
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    return arguments


def _refuse(message: str, code: int = 2) -> int:
    for line in message.splitlines():
        print(f"grulab: {printable(line)}", file=sys.stderr)
    return code

"""What a job can leave behind in its process, so that the next job finds the process as the first one did."""

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf.basecontainer import BaseContainer

from grulab.system.proc_status import proc_status
from grulab.system.signals import PAUSES, SIGNALS

_LOGGER_DEFAULTS: tuple[Any, ...] = (logging.NOTSET, False, True, (), ())


@dataclass(frozen=True)
class ProcessState:
    """What runs of grulab, Lightning and Hydra change in their process and do not put back.

    Beside what can be put back there is what only code of a user would change, which is compared alone: a process
    in which it differs takes no other job. The states of random generators are left out, because each run seeds them,
    and filters of warnings, which worker.py puts back.

    Attributes:
        folder: the working directory.
        environment: the environment variables.
        path: where modules are imported from.
        streams: standard output and standard error.
        handlers: what is done at a signal that stops or pauses a run.
        loggers: level, disabled, propagate, handlers and filters of each logger that differ from a new one's.
        torch_flags: name and value of each flag.
        numpy_errors: what NumPy does at a division by zero, and so on.
        hydra: Hydra's configuration of the present job, or None.
        collector: whether garbage is collected, and after how many new objects.
        others: what cannot be put back, or need not be.
    """

    folder: Path
    environment: dict[str, str]
    path: tuple[str, ...]
    streams: tuple[Any, Any]
    handlers: dict[signal.Signals, Any]
    loggers: dict[str, tuple[Any, ...]]
    torch_flags: dict[str, Any]
    numpy_errors: dict[str, Any]
    hydra: Any
    collector: tuple[bool, tuple[int, int, int]]
    others: dict[str, Any]

    @classmethod
    def now(cls) -> Self:
        """Return the present state."""
        return cls(
            folder=Path.cwd(),
            environment=dict(os.environ),
            path=tuple(sys.path),
            streams=(sys.stdout, sys.stderr),
            handlers={signum: signal.getsignal(signum) for signum in (*SIGNALS, *PAUSES)},
            loggers={logger.name: state for logger in _loggers() if (state := _state_of(logger)) != _LOGGER_DEFAULTS},
            torch_flags={name: read() for name, (read, _) in _TORCH_FLAGS.items()},
            numpy_errors=dict(np.geterr()),
            hydra=HydraConfig.instance().cfg,
            collector=(gc.isenabled(), gc.get_threshold()),
            others={name: read() for name, read in _OTHERS.items()},
        )

    def restore(self) -> None:
        """Bring this process back to this state, as far as that is possible."""
        os.chdir(self.folder)
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment)
        sys.path[:] = self.path
        sys.stdout, sys.stderr = self.streams
        for signum, handler in self.handlers.items():
            if signal.getsignal(signum) != handler:
                signal.signal(signum, handler)
        for logger in _loggers():
            _restore_logger(logger, *self.loggers.get(logger.name, _LOGGER_DEFAULTS))
        for name, (read, write) in _TORCH_FLAGS.items():
            if read() != self.torch_flags[name]:
                write(self.torch_flags[name])
        np.seterr(**self.numpy_errors)
        HydraConfig.instance().cfg = self.hydra
        (gc.enable if self.collector[0] else gc.disable)()
        gc.set_threshold(*self.collector[1])


def _flag(owner: Any, name: str) -> tuple[Any, Any]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


# (read, write) for each flag.
_TORCH_FLAGS: dict[str, tuple[Any, Any]] = {
    "grad": (torch.is_grad_enabled, torch.set_grad_enabled),
    "dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "anomalies": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "deterministic warn": (
        torch.is_deterministic_algorithms_warn_only_enabled,
        lambda value: torch.use_deterministic_algorithms(
            torch.are_deterministic_algorithms_enabled(), warn_only=value
        ),
    ),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    **{
        f"cudnn.{name}": _flag(torch.backends.cudnn, name)
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    },
    # It stands for matmul.allow_tf32, which cannot be read once this has been set.
    "matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "mkldnn.enabled": _flag(torch.backends.mkldnn, "enabled"),
}


def _of_kernel() -> list[str | None]:
    status = proc_status()
    return [status.get(name) for name in ("Umask", "SigBlk", "SigIgn", "SigCgt")]


_OTHERS: dict[str, Callable[[], Any]] = {
    "threads": threading.active_count,
    "start method of processes": lambda: multiprocessing.get_start_method(allow_none=True),
    "umask and signals": _of_kernel,
    "logs that are disabled": lambda: logging.root.manager.disable,
    "what shows a warning": lambda: warnings.showwarning,
    "resolvers of OmegaConf": lambda: list(BaseContainer._resolvers),
    "default device": torch.get_default_device,
    "autocast": lambda: [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")],
    "hooks of all modules": lambda: [len(hooks) for hooks in _hooks_of_all_modules()],
    "attention": lambda: [
        getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "math", "mem_efficient")
    ],
    "sums of 16-bit floats": lambda: [
        getattr(torch.backends.cuda.matmul, f"allow_{kind}_reduced_precision_reduction") for kind in ("fp16", "bf16")
    ],
}


def _hooks_of_all_modules() -> Iterator[Sized]:
    for name, hooks in vars(torch.nn.modules.module).items():
        if name.startswith("_global_") and isinstance(hooks, Sized):
            yield hooks


def _loggers() -> Iterable[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


def _state_of(logger: logging.Logger) -> tuple[Any, ...]:
    return logger.level, logger.disabled, logger.propagate, tuple(logger.handlers), tuple(logger.filters)


def _restore_logger(
    logger: logging.Logger, level: int, disabled: bool, propagate: bool, handlers: Any, filters: Any
) -> None:
    logger.disabled, logger.propagate = disabled, propagate
    if logger.level != level:
        logger.setLevel(level)
    for handler in logger.handlers:
        if handler not in handlers:
            handler.close()
    logger.handlers[:], logger.filters[:] = handlers, filters

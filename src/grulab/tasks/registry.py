"""Find tasks by name in the modules of this package and in the entry points ``grulab.tasks`` of other packages.

The decorator :func:`register_task` registers a task when its module is imported, and its module is imported when a
configuration names the task. So no list of the tasks is needed.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, TypeVar, get_args, get_type_hints

from grulab.config_error import ConfigError
from grulab.tasks.base import DataConfig, Task

ENTRY_POINTS = "grulab.tasks"
_PACKAGE = __name__.rpartition(".")[0]

_TaskClass = TypeVar("_TaskClass", bound=type[Task])
_REGISTERED: dict[str, type[Task]] = {}
_BUILT: dict[str, Task] = {}


def register_task(config_class: type[DataConfig]) -> Callable[[_TaskClass], _TaskClass]:
    """Return a decorator that registers a task's class; the class is built from a ``config_class`` instance.

    Args:
        config_class: a dataclass with ``task: Literal["<name>"]``.
    """
    (name,) = get_args(get_type_hints(config_class)["task"])

    def register(task_class: _TaskClass) -> _TaskClass:
        other = _REGISTERED.get(name)
        if _is_module(name) and task_class.__module__ != f"{_PACKAGE}.{name}":
            raise ValueError(f"grulab has a task with the name {name}; choose another name")
        if other is not None and other.__qualname__ != task_class.__qualname__:
            raise ValueError(f"{other.__module__} has a task with the name {name}; choose another name")
        task_class.config_class = config_class
        _REGISTERED[name] = task_class
        return task_class

    return register


def find_task(name: str) -> type[Task]:
    """Return the class of a task.

    Raises:
        ConfigError: if there is no such task, or its package cannot be imported or does not register it.
    """
    if name not in _REGISTERED:
        _import_task(name)
    return _REGISTERED[name]


def build_task(config: DataConfig) -> Task:
    """Return the task of a configuration; equal configurations share an object, which computes its ceiling once.

    Raises:
        ConfigError: if the task cannot be built, such as from data that are not there.
    """
    key = repr(config)
    if key not in _BUILT:
        task_class: Any = find_task(config.task)
        try:
            _BUILT[key] = task_class(config)
        except ConfigError:
            raise
        except (OSError, ValueError) as error:
            raise ConfigError(f"data.task={config.task}: {error}") from None
    return _BUILT[key]


def task_names() -> list[str]:
    """Return the names of all available tasks, in alphabetical order."""
    for module in iter_modules(import_module(_PACKAGE).__path__, f"{_PACKAGE}."):
        import_module(module.name)
    return sorted({*_REGISTERED, *entry_points(group=ENTRY_POINTS).names})


def _import_task(name: str) -> None:
    """Import the module that registers a task."""
    if _is_module(name):
        import_module(f"{_PACKAGE}.{name}")
    if name not in _REGISTERED and (found := [*entry_points(group=ENTRY_POINTS, name=name)]):
        try:
            found[0].load()
        # A module of another package may raise any exception.
        except Exception as error:
            cause = " ".join(str(error).split())
            raise ConfigError(
                f"data.task={name}: {found[0].value} cannot be imported ({type(error).__name__}: {cause}); "
                f"mend or remove the package that has it as an entry point of {ENTRY_POINTS}"
            ) from None
        if name not in _REGISTERED:
            raise ConfigError(
                f"data.task={name}: {found[0].value} does not register it; "
                f'decorate its class with register_task, and its configuration has task: Literal["{name}"]'
            )
    if name not in _REGISTERED:
        raise ConfigError(f"data.task={name}: choose from {', '.join(task_names())}")


def _is_module(name: str) -> bool:
    """Return whether a module of this package has a name."""
    return name.isidentifier() and find_spec(f"{_PACKAGE}.{name}") is not None

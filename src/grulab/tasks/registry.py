"""Find tasks by name: the modules of this package, and the entry points ``grulab.tasks`` of other packages.

The decorator :func:`register_task` registers a task when its module is imported, and the module is imported when a
configuration names the task. So there is no list of the tasks.
"""

import dataclasses
import json
import operator
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
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
    if not (isinstance(config_class, type) and issubclass(config_class, DataConfig)):
        raise TypeError(f"{config_class!r} is no subclass of DataConfig")
    (name,) = get_args(get_type_hints(config_class)["task"])

    def register(task_class: _TaskClass) -> _TaskClass:
        if _is_module(name) and task_class.__module__ != f"{_PACKAGE}.{name}":
            raise ValueError(f"grulab has a task with the name {name}; choose another name")
        other = _REGISTERED.get(name, task_class)
        if _place(other) != _place(task_class):
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
    if name not in _REGISTERED and _is_module(name):
        _import(name, f"{_PACKAGE}.{name}", lambda: import_module(f"{_PACKAGE}.{name}"))
    if name not in _REGISTERED and (found := _entry_points(name)):
        if len({point.value for point in found}) > 1:
            values = " and ".join(sorted(point.value for point in found))
            raise ConfigError(f"data.task={name}: {values} have this name; remove one of the packages")
        _import(name, found[0].value, found[0].load)
        if name not in _REGISTERED:
            raise ConfigError(
                f"data.task={name}: {found[0].value} does not register it; "
                f'decorate its class with register_task, and its configuration has task: Literal["{name}"]'
            )
    if name not in _REGISTERED:
        raise ConfigError(
            f"data.task={name}: choose from {', '.join(task_names())}, or install the package that has this task"
        )
    return _REGISTERED[name]


def build_task(config: DataConfig) -> Task:
    """Return the task of a configuration; equal configurations share an object, which computes its ceiling once.

    Raises:
        ConfigError: if the task cannot be built, such as from data that are not there, or its sizes make no sense.
    """
    key = json.dumps(dataclasses.asdict(config), sort_keys=True)
    if key not in _BUILT:
        task_class: Any = find_task(config.task)
        try:
            _BUILT[key] = _checked(task_class(config))
        except ConfigError:
            raise
        # The task may be another package's, and raise any exception.
        except (Exception, SystemExit) as error:
            is_plain = isinstance(error, OSError | ValueError)
            cause = str(error) if is_plain else f"{type(error).__name__}: {error}"
            raise ConfigError(f"data.task={config.task}: {' '.join(cause.split())}") from None
    return _BUILT[key]


def task_names() -> list[str]:
    """Return the names of all available tasks, in alphabetical order. Tasks of other packages are not imported."""
    return sorted({*imported_tasks(), *(point.name for point in _entry_points())})


def imported_tasks() -> list[str]:
    """Return the names of the tasks of this package, and of the others that are imported already."""
    for module in iter_modules(import_module(_PACKAGE).__path__, f"{_PACKAGE}."):
        try:
            import_module(module.name)
        except Exception:
            # The list of tasks is a hint in an error message; find_task names a module that cannot be imported.
            continue
    return sorted(_REGISTERED)


def _import(name: str, place: str, load: Callable[[], Any]) -> None:
    """Import the module of a task.

    Raises:
        ConfigError: if it raises an exception, or asks to exit.
    """
    try:
        load()
    except (Exception, SystemExit) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(
            f"data.task={name}: {place} cannot be imported ({type(error).__name__}: {cause}); "
            "mend it, or remove the package that has it"
        ) from None


def _checked(task: Task) -> Task:
    """Return the task with plain numbers for its sizes: NumPy's would not be plain data in a checkpoint.

    Raises:
        ValueError: if a size is missing, no number, or impossible.
    """
    try:
        task.num_features, task.num_classes = operator.index(task.num_features), operator.index(task.num_classes)
        shortest, longest = map(operator.index, task.length_range)
        task.chance = float(task.chance)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"its sizes cannot be read ({error}); see grulab.tasks.base.Task") from None
    task.length_range = (shortest, longest)
    if task.num_features < 1 or task.num_classes < 1:
        raise ValueError(f"it has {task.num_features} features and {task.num_classes} classes; at least 1 is needed")
    if not 1 <= shortest <= longest:
        raise ValueError(f"its lengths are from {shortest} to {longest}; they have to be a range from 1")
    if not 0 <= task.chance <= 1:
        raise ValueError(f"its chance level is {task.chance}; it has to be from 0 to 1")
    return task


def _entry_points(name: str | None = None) -> list[EntryPoint]:
    """Return the entry points of tasks, or those with a name; none if a package's file of them cannot be read."""
    try:
        points = list(entry_points(group=ENTRY_POINTS))
    # importlib.metadata raises TypeError for a line without "=".
    except Exception:
        return []
    return [point for point in points if name is None or point.name == name]


def _is_module(name: str) -> bool:
    """Return whether a module of this package has a name."""
    return name.isidentifier() and find_spec(f"{_PACKAGE}.{name}") is not None


def _place(task_class: type[Task]) -> tuple[str, str]:
    """Return where a class is defined: a module that is imported again defines the same class."""
    return task_class.__module__, task_class.__qualname__

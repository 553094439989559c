"""Check a folder's YAML files before Hydra reads them: Hydra has no limits of its own."""

from pathlib import Path

import yaml

from grulab.config_error import ConfigError
from grulab.system.printable import printable

_MAX_BYTES = 2**20
# With aliases, ten lines can stand for more values than any memory holds.
_MAX_VALUES = 100_000
# The reader of YAML is recursive.
_MAX_DEPTH = 100


def refuse_odd_yaml(folder: Path) -> None:
    """Check that the YAML files of a configuration are texts of a possible size, also with aliases written out.

    Looks where Hydra does by default: in the folder and in those of its groups.

    Raises:
        ConfigError: naming the first that is not, and where.
    """
    for path in sorted(path for pattern in ("*", "*/*", "hydra/*/*") for path in folder.glob(f"{pattern}.yaml")):
        if problem := _problem(path):
            raise ConfigError(f"{printable(str(path))}: {problem}")


def _problem(path: Path) -> str | None:
    if path.is_dir() or not path.exists():
        return None
    if not path.is_file():
        return "is not a regular file"
    if path.stat().st_size > _MAX_BYTES:
        return f"has more than {_MAX_BYTES:,} bytes"
    try:
        content = path.read_bytes()
        text = content.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if "*" not in text and content.count(b"[") + content.count(b"{") < _MAX_DEPTH:
        return None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        too_large = node is not None and _count(node, {}) > _MAX_VALUES
    except yaml.YAMLError:
        # Hydra says where the mistake is.
        return None
    except RecursionError:
        return "is nested too deeply, or holds itself"
    return f"its aliases stand for more than {_MAX_VALUES:,} values" if too_large else None


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values below a node, with every alias counted as what it stands for."""
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]

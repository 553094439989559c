"""Checkpoints with a valid checksum that no run has written. This module imports torch."""

import copy
import hashlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grulab.run_folder.checkpoint_file import add_checksum

Keys = tuple[Any, ...]
Change = Callable[[Any], Any]
# More than a process may have, in bytes.
_BOMB = 5 * 2**29
_LEVELS = 14


def seal(path: Path, content: Any) -> None:
    """Write a checkpoint with a checksum."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(add_checksum(buffer.getvalue()))


def leaves(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield the keys and the value of every entry of nested groups and lists, the groups included."""
    if keys:
        yield keys, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, (*keys, name))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from leaves(part, (*keys, index))


def with_entry(content: Any, keys: Keys, change: Change | None) -> Any:
    """Return a copy in which one entry is changed, or removed; the content itself if it has no such entry."""
    changed = copy.deepcopy(content)
    place: Any = changed
    try:
        for key in keys[:-1]:
            if isinstance(place[key], tuple):
                place[key] = list(place[key])
            place = place[key]
        if change is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = change(place[keys[-1]])
    except (KeyError, IndexError):
        return content
    return changed


def mutations(value: Any) -> Iterator[tuple[str, Change | None]]:
    """Yield what can be done to an entry so that it is another than a run writes: a name, and the change."""
    yield "removed", None
    yield "retyped", lambda old: "text" if not isinstance(old, str) else 3
    if isinstance(value, Tensor):
        yield from _mutations_of_a_tensor(value)
    if isinstance(value, list):
        yield "longer", lambda old: [*old, *old, 7]
        yield "a million entries long", lambda old: [*old, *[0] * 10**6]
    if isinstance(value, dict):
        yield "with one more", lambda old: old | {"more": 1}
        yield "with keys that are no text", lambda old: old | {None: 1, 3: 4, (1, 2): 5}
    if type(value) is int:
        yield "negative", lambda old: -1
        yield "made huge", lambda old: 2**70
        yield "made a fraction", lambda old: 0.5
    if type(value) is float:
        yield "made NaN", lambda old: float("nan")
        yield "made infinite", lambda old: float("-inf")
    if isinstance(value, str):
        yield "made long", lambda old: old * 10**7


def _mutations_of_a_tensor(value: Tensor) -> Iterator[tuple[str, Change | None]]:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(1, dtype=value.dtype).expand(shape)

    yield "of another type", lambda old: old.to(torch.float16 if old.dtype != torch.float16 else torch.int8)
    yield "reshaped", lambda old: zeros(*(1,) * (old.dim() + 1)).clone()
    yield "complex", lambda old: old.to(torch.complex64)
    yield "sparse", lambda old: old.to_sparse()
    yield "without memory", lambda old: old.to("meta")
    yield "a parameter", lambda old: torch.nn.Parameter(old, requires_grad=old.is_floating_point())
    if value.dim():
        yield "empty", lambda old: old[:0].clone()
        yield "expanded", lambda old: zeros(*old.shape)
        yield "made huge", lambda old: zeros(10**9, *old.shape[1:])
        yield "not contiguous", lambda old: torch.stack([old, old], -1)[..., 0]
    if value.is_floating_point():
        yield "made NaN", lambda old: torch.full_like(old, float("nan"))
    if value.dim() == 2:
        yield "transposed", lambda old: old.t().contiguous().t()


class _Reduced:
    """An object whose pickle asks for a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def with_system_call(command: str) -> dict[str, Any]:
    """Return a content that runs a command if it is unpickled without care."""
    return {"grulab": _Reduced(os.system, command), "state_dict": {}, "loops": {}, "callbacks": {}}


def _laughs(kind: type) -> Any:
    """Return a small value that has 10**14 entries if it is walked: each level holds the one below ten times."""
    value: Any = ["ha"] * 10 if kind is list else {str(key): "ha" for key in range(10)}
    for _ in range(_LEVELS):
        value = [value] * 10 if kind is list else {str(key): value for key in range(10)}
    return value


def _itself(kind: type) -> Any:
    """Return a list or a group that holds itself."""
    value: Any = kind()
    if kind is list:
        value.append(value)
    else:
        value["itself"] = value
    return value


def _forged(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Any:
    """Return what is unpickled as a view of a storage of one number."""
    make: Any = torch.TypedStorage
    storage = make(wrap_storage=torch.zeros(1).untyped_storage(), dtype=torch.float32, _internal=True)
    rebuild: Any = torch._utils._rebuild_tensor_v2
    return _Reduced(rebuild, storage, offset, size, stride, False, OrderedDict())


# Entries, one for each part of the code that reads them, and what is put there.
_PLACES: list[Keys] = [
    ("grulab",),
    ("grulab", "config"),
    ("grulab", "config", "name"),
    ("grulab", "config", "model"),
    ("grulab", "epochs"),
    ("callbacks",),
    ("callbacks", "EpochLog", "rows"),
    ("callbacks", "RNGState", "python"),
    ("callbacks", "Checkpointer", "best_score"),
    ("hyper_parameters",),
    ("hyper_parameters", "hidden_size"),
    ("loops", "fit_loop"),
    ("lr_schedulers",),
    ("optimizer_states", 0, "param_groups", 0, "betas"),
    ("state_dict",),
    ("more",),
]
_VALUES: dict[str, Callable[[], Any]] = {
    "shared lists": lambda: _laughs(list),
    "shared groups": lambda: _laughs(dict),
    "a list in itself": lambda: _itself(list),
    "a group in itself": lambda: _itself(dict),
}
_WEIGHT: Keys = ("state_dict", "model.head.bias")
_VIEWS: dict[str, Any] = {
    "a view beyond its memory": ((3,), (10**9,)),
    "a view before its memory": ((3,), (1,), -5),
    "a view with a negative step": ((3,), (-1,)),
    "a view of a negative size": ((-3,), (1,)),
    "a view of 2**62 numbers": ((2**31, 2**31), (0, 0)),
}


def by_hand(canary: Path) -> dict[str, Callable[[Path], None]]:
    """Return malformed checkpoints made by hand: functions that turn a checkpoint into one."""
    found: dict[str, Callable[[Path], None]] = {}
    for keys in _PLACES:
        for name, make in _VALUES.items():
            if keys in _PLACES[1:4] or name == "shared lists":
                found[f"{name} at {'.'.join(map(str, keys))}"] = _putting(keys, make)
    found |= {name: _putting(_WEIGHT, partial(_forged, *view)) for name, view in _VIEWS.items()}
    command = f"touch '{canary}'"
    call = with_system_call(command)
    pickles: dict[str, Callable[[bytes], bytes]] = {
        "os.system at the end of a whole pickle": lambda old: old + pickle.dumps(call, 2),
        "os.system before the content": lambda old: old[:2] + _called_first(command) + old[2:],
        "lists a million deep": lambda old: b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
        "a text of four gigabytes, it says": lambda old: b"\x80\x02X\xff\xff\xff\xff.",
        "an unknown opcode": lambda old: b"\x80\x02\xf0.",
        "an empty pickle": lambda old: b"",
    }
    found |= {name: partial(_replace_pickle, change) for name, change in pickles.items()}
    found |= {
        "os.system": lambda path: seal(path, call),
        "os.system in a plain pickle": lambda path: _append_checksum(path, pickle.dumps(call, protocol=2)),
        "os.system in torch's old format": lambda path: _seal_old(path, call),
        "compressed zeros as a pickle": partial(_bomb, "data.pkl"),
        "compressed zeros as a weight": partial(_bomb, "data/0"),
        "only a checksum": lambda path: _append_checksum(path, b""),
        "a zip of nothing": partial(_seal_zip, {}),
        "100,000 files": partial(_seal_zip, {f"a/{number}": b"" for number in range(100_000)}),
        "a name that leads elsewhere": partial(_seal_zip, {f"../{canary.name}": b"x"}),
    }
    return found


def _putting(keys: Keys, make: Callable[[], Any]) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        place: Any = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = make()
        seal(path, content)

    return put


def _append_checksum(path: Path, data: bytes) -> None:
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


def _seal_old(path: Path, content: Any) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    _append_checksum(path, buffer.getvalue())


def _seal_zip(files: dict[str, bytes], path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path.write_bytes(add_checksum(buffer.getvalue()))


def _replace_pickle(change: Callable[[bytes], bytes], path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in files if name.endswith("/data.pkl"))
    _seal_zip(files | {name: change(files[name])}, path)


def _called_first(command: str) -> bytes:
    """Return the opcodes that call os.system and drop its result."""
    return b"cposix\nsystem\nX" + len(command).to_bytes(4, "little") + command.encode() + b"\x85R0"


def _bomb(bombed: str, path: Path) -> None:
    """Put zeros, which take no room when they are compressed, in the place of a file of the archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for name in old.namelist():
            if not name.endswith(f"/{bombed}"):
                new.writestr(name, old.read(name))
                continue
            with new.open(name, "w", force_zip64=True) as file:
                for _ in range(_BOMB // 2**24):
                    file.write(bytes(2**24))
    path.write_bytes(add_checksum(buffer.getvalue()))

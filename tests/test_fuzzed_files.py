"""Damaged files are refused in one line, or give exactly what a strict reader finds in them: never another answer."""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.sequences import make, write_ts
from tests.strict_reader import FEATURES, check_table, contents, read, read_stream, refused

DATA = make(count=16, classes=2, features=2, longest=4, split=True)


def flip(raw: bytes, generator: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(generator.choice([1, 1, 1, 2, 8])):
        changed[generator.randrange(len(raw))] = generator.choice([generator.randrange(256), *b'",\t\r\n\0_ ;1-'])
    return bytes(changed)


def put_in(raw: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(raw) + 1)
    piece = [b'"', b'""', b"\0", b"\r", b"\n", b"\n\n", b"\r\n", b" ", b"\t", b",", b";", b"\xef\xbb\xbf", b"\xff"]
    piece += [b"\x1b[31m", b"\x0b", b"\x1c", b"\xc2\x85", "\u2028".encode(), b"1e400", b"9" * 400, b"#", b"\\", b"_"]
    return raw[:place] + generator.choice(piece) + raw[place:]


def put_in_pair(raw: bytes, generator: random.Random) -> bytes:
    """Put quotes around some of the text, which may be several rows."""
    start = generator.randrange(len(raw))
    end = min(len(raw), start + generator.randrange(60))
    return raw[:start] + b'"' + raw[start:end] + b'"' + raw[end:]


def shuffle(raw: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(raw))
    piece = list(raw[start : start + generator.choice([2, 8, 64, len(raw)])])
    generator.shuffle(piece)
    return raw[:start] + bytes(piece) + raw[start + len(piece) :]


def drop(raw: bytes, generator: random.Random) -> bytes:
    start = generator.randrange(len(raw))
    return raw[:start] + raw[start + generator.choice([1, 1, 2, 30]) :]


DAMAGES = [flip, put_in, put_in_pair, shuffle, drop]
QUOTED = '"id","time","a","b","note","label"\n' + "".join(
    f'"s{k}",{t},{k}.5,"{t}","a ""b"", c","{"no" if k % 2 else "yes"}"\n' for k in range(12) for t in range(2)
)


def table(path: Path, kind: str) -> bytes:
    if kind == "quoted":
        return QUOTED.encode()
    raw = DATA.write(path).read_bytes()
    return {"cr": raw.replace(b"\n", b"\r"), "crlf": raw.replace(b"\n", b"\r\n")}.get(kind, raw)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["lf", "quoted", "cr", "crlf", "tsv"])
def test_a_damaged_table(tmp_path: Path, kind: str, damage: Any) -> None:
    path = tmp_path / ("a.tsv" if kind == "tsv" else "a.csv")
    raw, generator = table(path, kind), random.Random(f"{kind} {damage.__name__}")
    # A column that is not used may swallow rows too.
    changes = {"features": list(FEATURES)} if kind == "quoted" else {}
    assert check_table(path, raw, **changes) is not None
    for _ in range(10):
        check_table(path, damage(raw, generator), **changes)


@pytest.mark.parametrize("kind", ["lf", "quoted", "tsv"])
def test_a_table_that_is_cut_off_anywhere(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.tsv" if kind == "tsv" else "a.csv")
    raw = table(path, kind)
    # Each place in the first two and the last two lines, and some between.
    places = {*range(raw.index(b"\n", 60) + 1), *range(len(raw) - 60, len(raw)), *range(0, len(raw), 97)}
    for place in sorted(places)[:: 1 if kind == "lf" else 5]:
        check_table(path, raw[:place])


def test_what_changes_nothing(tmp_path: Path) -> None:
    raw = table(tmp_path / "a.csv", "lf")
    plain = read(tmp_path / "a.csv")
    lines = raw.splitlines(keepends=True)
    for same in (
        b"\xef\xbb\xbf" + raw,
        raw.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + raw.replace(b"\n", b"\r\n"),
        raw.replace(b"\n", b"\r"),
        raw[:-1],
        raw.replace(b"\n", b"\n\n  \n"),
        b"".join(b",".join(b'"%s"' % field for field in line.rstrip().split(b",")) + b"\n" for line in lines),
    ):
        task = check_table(tmp_path / "b.csv", same)
        assert task is not None
        assert task.content == plain.content
        assert read_stream(tmp_path / "b.csv") == contents(plain)


FORMS = ["a.npz", "a.ts", "a.parquet"]


def good_bytes(path: Path) -> bytes:
    if path.suffix == ".ts":
        write_ts(path, DATA.sequences, DATA.labels, sorted(set(DATA.labels)))
    elif path.suffix == ".parquet":
        # Without checksums nobody can tell that a value has changed.
        DATA.table().to_parquet(path, index=False, write_page_checksum=True)
    else:
        DATA.write(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("damage", [*DAMAGES, "cut"])
def test_a_damaged_file_of_another_form(tmp_path: Path, name: str, damage: Any) -> None:
    path, generator = tmp_path / name, random.Random(f"{name} {damage}" if damage == "cut" else damage.__name__)
    raw = good_bytes(path)
    good = contents(read(path)), read_stream(path)
    for _ in range(12):
        changed = raw[: generator.randrange(len(raw))] if damage == "cut" else damage(raw, generator)
        path.write_bytes(changed)
        task = refused(name, lambda: read(path))
        both = task and contents(task), refused(name, lambda: read_stream(path))
        for found, expected in zip(both, good, strict=True):
            if found and path.suffix == ".ts":
                words = set(re.split(r"[,:\s]+", changed.decode("utf-8-sig")))
                numbers = {float(word) for word in words if re.fullmatch(r"[-+.\de]*\d[-+.\de]*", word)}
                assert {label for label, _ in found.values()} <= words
                assert {value for _, rows in found.values() for row in rows for value in row} <= numbers
            elif found:
                assert found == expected

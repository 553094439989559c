"""Files that hold no table of sequences are refused in one line; what is only unusual is read as it is written."""

from pathlib import Path

import numpy as np
import pytest

from grulab.config_error import ConfigError
from tests.strict_reader import check_table, read, read_stream, refused

HEAD, ROWS = (
    "id,time,a,b,label\n",
    "".join(f"{k},{t},{k}.5,{t},{'no' if k % 2 else 'yes'}\n" for k in range(12) for t in range(2)),
)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"\xef\xbb\xbf",
        HEAD,
        HEAD[:-1],
        "z" * 300_000,
        f"id,time,a,b,label,{'z' * 200_000}\n{ROWS}",
        f"id,time,a,a,label\n{ROWS}",
        'id,time,a,b,label,"x\ny"\n' + ROWS.replace("\n", ",1\n"),
        *(f"id,time,a,x{mark}y,label\n{ROWS}" for mark in "\x0b\x0c\x1b\x1c\x85\u2028\t\0"),
        (HEAD + ROWS).encode("utf-16"),
        (HEAD + ROWS).encode("utf-16-le"),
        (HEAD + ROWS).encode("utf-32"),
        (HEAD + ROWS.replace("yes", "é")).encode("latin-1"),
        (HEAD + ROWS).replace(",", ";"),
        HEAD + ROWS.replace("5,1,", "5;1;"),
        HEAD + ROWS + "11,5,1,2\n",
        HEAD + ROWS + "9x,5,1,2\n",
        HEAD + ROWS + "11,5,1,2,no,\n",
        HEAD + ROWS + "11,5,1,1\x002,no\n",
        HEAD + ROWS.replace("1.5", "１"),
        HEAD + ROWS.replace("1.5", "1_5"),
        HEAD + ROWS.replace("1.5", "9" * 400),
        HEAD + ROWS + "x\x1by,0,1,1,no\n",
    ],
)
def test_no_table_of_sequences(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refused("a.csv", lambda: read(path)) is None
    assert not refused("a.csv", lambda: read_stream(path))


def test_one_row(tmp_path: Path) -> None:
    assert check_table(tmp_path / "a.csv", b"id,time,a,b,label\n1,2,3,4,x\n") is None
    assert read_stream(tmp_path / "a.csv") == {"1": ("x", [(3.0, 4.0)])}


@pytest.mark.parametrize(("old", "new"), [(".5", "e307"), (".5", "e-320"), ("1.5", "0." + "123456789" * 40)])
@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_huge_and_tiny_numbers(tmp_path: Path, old: str, new: str, scale: str) -> None:
    task = check_table(tmp_path / "a.csv", (HEAD + ROWS.replace(old, new)).encode(), scale=scale)
    assert task is not None
    assert np.isfinite(task.generate(0, "train", np.arange(task.size("train"))).features).all()


def test_a_value_beyond_32_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEAD + ROWS.replace("7.5", "1e300"))
    with pytest.raises(
        ConfigError, match=r"a.csv: id 7, column a: the value 1e\+300 is beyond 32 bits when it is scaled"
    ):
        read(path, scale="none")


def test_times_at_the_ends_of_64_bits(tmp_path: Path) -> None:
    """Their difference is beyond 64 bits."""
    last = 2**63 - 1
    rows = "".join(f"{k},{t},{k}.5,{t},{'no' if k % 2 else 'yes'}\n" for k in range(12) for t in (last, -last))
    assert check_table(tmp_path / "a.csv", (HEAD + rows).encode()) is not None
    falling = "".join(f"{k},{2**64 - t},{t},0,{'no' if k % 2 else 'yes'}\n" for k in range(12) for t in (1, 4096))
    task = check_table(tmp_path / "b.csv", (HEAD + falling).encode())
    assert task is not None
    assert task.flat.values[:2, 0].tolist() == [4096, 1]


def test_ten_thousand_columns(tmp_path: Path) -> None:
    names = tuple(f"c{number}" for number in range(10_000))
    rows = "".join(f"{k},0,{','.join(str(k + n) for n in range(10_000))},{'ab'[k % 2]}\n" for k in range(8))
    assert check_table(tmp_path / "a.csv", f"id,time,{','.join(names)},label\n{rows}".encode(), names)

"""Files of rows and columns, good and bad."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ensemble_kd.data.columns import (
    File,
    cells,
    column_of,
    different,
    identifiers,
    read,
    read_parts,
    whole_numbers,
)
from ensemble_kd.errors import UserError


def written(name: str, content: bytes | str) -> Path:
    path = Path(name).absolute()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "x,y\n1,a\n2,b\n", {"x": ["1", "2"], "y": ["a", "b"]}),
        ("a.csv", "\ufeffx,y\r\n1,a\r\n", {"x": ["1"], "y": ["a"]}),
        ("a.csv", 'x,"y, z"\n"a ""b""","c\nd"\n', {"x": ['a "b"'], "y, z": ["c\nd"]}),
        ("a.csv", "x,y\n1,\n,b", {"x": ["1", ""], "y": ["", "b"]}),
        ("a.CSV", "x,y\n1,ö\n", {"x": ["1"], "y": ["ö"]}),
        ("a.csv", 'x,"y\nz"\n1,2\n', {"x": ["1"], "y\nz": ["2"]}),
        ("a.tsv", 'x\ty\n"a\tb, c\n', {"x": ['"a'], "y": ["b, c"]}),
    ],
)
def test_delimited_text(name: str, content: str, expected: dict[str, list[str]]) -> None:
    assert read(written(name, content), "").to_pydict() == expected
    packed = written(f"{name}.gz", gzip.compress(content.encode()))
    assert read(packed, "").to_pydict() == expected


def test_parquet() -> None:
    table = pa.table({"x": [1, None], "y": [0.5, 2.0], "z": ["a", None], "t": [True, False]})
    parquet.write_table(table, "a.parquet")
    found = read(Path("a.parquet"), "")
    assert found.equals(table)
    file = File(found, "here")
    assert cells(file, "x", "key") == ["1", None]
    assert cells(file, "y", "key") == ["0.5", "2"]
    assert cells(file, "z", "key") == ["a", None]
    assert cells(file, "t", "key") == ["true", "false"]
    kinds = pa.table({"d": pa.array(["a", "b", "a"]).dictionary_encode(), "n": [1.0, None, 3.0]})
    assert cells(File(kinds, "here"), "d", "key") == ["a", "b", "a"]
    nan = File(pa.table({"n": [1.0, float("nan")]}), "here")
    assert cells(nan, "n", "key") == ["1", None]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_cell_of_any_length(name: str) -> None:
    long = "word " * 600_000
    path = written(name, f"x\n{long}\nshort\n")
    assert read(path, "")["x"].to_pylist() == [long, "short"]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string()])
def test_text_of_other_types(kind: Any) -> None:
    file = File(pa.table({"x": pa.array(["a", None], kind)}), "here")
    assert cells(file, "x", "key") == ["a", None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv is empty; get it there"),
        ("a.csv", b"x,y\n", "a.csv holds no rows, only the columns x, y"),
        ("a.csv", b"x,y\n1\n", "a.csv cannot be read: CSV parse error: Expected 2 columns, got 1"),
        ("a.csv", b"x,y\n1,2,3\n", "Expected 2 columns, got 3"),
        ("a.csv", b'x,y\n"1,2\n', "a.csv cannot be read: CSV parse error"),
        ("a.csv", b"x,y\n1,\xe4\n", "its text is not UTF-8; convert it, for example with iconv"),
        ("a.csv", b"x,\xe4\n1,2\n", "its text is not UTF-8"),
        ("a.csv", "x,y\n1,2\n".encode("utf-16"), "a.csv"),
        ("a.csv", b"x,x\n1,2\n", "expected columns of different names, got 'x' twice"),
        ("a.csv.gz", b"x,y\n1,2\n", "a.csv.gz cannot be unpacked: it is truncated or not gzip"),
        ("a.csv.gz", gzip.compress(b"x,y\n1,2\n", mtime=0)[:-9], "cannot be unpacked"),
        ("a.parquet", b"PAR1 and no more", "a.parquet cannot be read: "),
        ("a.xlsx", b"PK", r"expected a file \.csv, \.tsv, \.parquet"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes, message: str) -> None:
    path = written(name, content)
    with pytest.raises(UserError, match=message) as raised:
        read(path, "get it there")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_file() -> None:
    with pytest.raises(UserError, match=r"no file .*a\.csv; get it there"):
        read(Path("a.csv"), "get it there")


def test_the_parts_that_there_are() -> None:
    train, test = written("a.csv", "x\n1\n2\n3\n"), written("b.csv", "x\n4\n")
    files = read_parts({"train": str(train), "val": None, "test": test}, "", limit=2)
    assert list(files) == ["train", "test"]
    assert [file.where for file in files.values()] == [str(train), str(test)]
    assert [file.table["x"].to_pylist() for file in files.values()] == [["1", "2"], ["4"]]
    for limit in (0, 4):
        with pytest.raises(UserError, match=rf"limit must be between 1 and 3, got {limit}"):
            read_parts({"train": train}, "", limit=limit)


def test_unknown_columns() -> None:
    file = File(pa.table({"sentence": ["a"], "when": pa.array([0], pa.date32())}), "here")
    with pytest.raises(
        UserError, match=r"data\.key: no column 'sentense' in here; did you mean 's"
    ):
        column_of(file, "sentense", "data.key")
    with pytest.raises(
        UserError, match="here: column 'when' must hold text or numbers, got date32"
    ):
        cells(file, "when", "data.key")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["3", "1"], np.array([3, 1])),
        (["-3", "1"], np.array([-3, 1])),
        (["3", "b"], np.array(["3", "b"])),
        (["03", "3"], np.array(["03", "3"])),
        (["3", str(2**70)], np.array(["3", str(2**70)])),
    ],
)
def test_ids(said: list[str], expected: Any) -> None:
    found = identifiers(File(pa.table({"id": said}), "here"), "id")
    assert found.dtype.kind == expected.dtype.kind
    assert found.tolist() == expected.tolist()


def test_ids_that_are_none() -> None:
    with pytest.raises(UserError, match="here: ids must all be different, got 'b' in rows 2 and 3"):
        different(["a", "b", "b"], "here")
    with pytest.raises(UserError, match="here: column 'id' has no id in row 2"):
        identifiers(File(pa.table({"id": ["a", ""]}), "here"), "id")
    with pytest.raises(UserError, match=r"data\.source\.id: no column 'id' in here"):
        identifiers(File(pa.table({"x": ["a"]}), "here"), "id")


def test_whole_numbers() -> None:
    assert whole_numbers(["1.0"]) is None
    assert whole_numbers([]) is not None

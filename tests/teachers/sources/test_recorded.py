"""Predictions that were written down."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from ensemble_kd.teachers.foreign import Numbered
from ensemble_kd.teachers.sources import Loaded, Recorded, Told

Refusal = Callable[[Callable[[], object]], str]

IDS = np.array(["d", "a", "c", "b"])
NUMBERS = np.array([40, 10, 30, 20])
TOLD = Told((2,), ("ant", "bee", "cat"), identities=lambda: (IDS, NUMBERS))
SAID = np.arange(12).reshape(4, 3) / 4
"""In the order of ``IDS``."""


def of(loaded: Loaded, *numbers: int) -> list[list[float]]:
    network = loaded.network
    assert isinstance(network, Numbered)
    found: list[list[float]] = network.of(torch.tensor(numbers)).logits.tolist()
    return found


def table(file: Path, **columns: Any) -> str:
    parquet.write_table(pa.table(columns), file)
    return str(file)


def test_npz_by_id(tmp_path: Path) -> None:
    order = [2, 0, 3, 1]
    np.savez(tmp_path / "p.npz", id=IDS[order], logits=SAID[order])
    loaded = Recorded(str(tmp_path / "p.npz")).load(TOLD)
    assert of(loaded, 10, 40, 10) == [SAID[1].tolist(), SAID[0].tolist(), SAID[1].tolist()]
    assert loaded.names is None


def test_npy_in_the_order_of_the_data(tmp_path: Path, refusal: Refusal) -> None:
    np.save(tmp_path / "p.npy", SAID)
    loaded = Recorded(str(tmp_path / "p.npy"), probabilities=False).load(TOLD)
    assert of(loaded, *NUMBERS.tolist()) == SAID.tolist()
    assert "logits or probabilities? say it with probabilities: true or false" in refusal(
        lambda: Recorded(str(tmp_path / "p.npy")).load(TOLD)
    )
    np.save(tmp_path / "p.npy", SAID[:3])
    assert "expected a row for each of 4 samples, for it has no ids, got 3" in refusal(
        lambda: Recorded(str(tmp_path / "p.npy"), probabilities=False).load(TOLD)
    )


def test_columns_go_by_the_names_of_the_classes(tmp_path: Path) -> None:
    columns = {"bee": SAID[:, 1], "key": IDS, "cat": SAID[:, 2], "ant": SAID[:, 0]}
    source = Recorded(table(tmp_path / "p.parquet", **columns), "key", False)
    loaded = source.load(TOLD)
    assert loaded.names == ("bee", "cat", "ant")
    assert of(loaded, 30) == [SAID[2][[1, 2, 0]].tolist()]


@pytest.mark.parametrize("name", ["logits", "probabilities"])
def test_a_column_of_lists(name: str, tmp_path: Path) -> None:
    values = np.full((4, 3), 1 / 3) if name == "probabilities" else SAID
    columns = {"id": IDS, name: list(values), "text": ["x"] * 4}
    loaded = Recorded(table(tmp_path / "p.parquet", **columns)).load(TOLD)
    expected = np.log(values) if name == "probabilities" else values
    assert np.allclose(of(loaded, *NUMBERS.tolist()), expected)
    assert loaded.names is None


def test_probabilities_of_zero(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "p.npz", id=IDS, probabilities=np.eye(4)[:, :3] + np.eye(4)[:, [3, 3, 3]] / 3
    )
    loaded = Recorded(str(tmp_path / "p.npz")).load(TOLD)
    assert of(loaded, 40)[0] == pytest.approx([0, math.log(1e-7), math.log(1e-7)], abs=1e-5)


def test_names_in_an_npz(tmp_path: Path, refusal: Refusal) -> None:
    names = np.array(["cat", "ant", "bee"])
    np.savez(tmp_path / "p.npz", id=IDS, logits=SAID, names=names)
    assert Recorded(str(tmp_path / "p.npz")).load(TOLD).names == ("cat", "ant", "bee")
    np.savez(tmp_path / "p.npz", id=IDS, logits=SAID, names=names[:2])
    assert "expected one name for each of 3 classes, got 2" in refusal(
        lambda: Recorded(str(tmp_path / "p.npz")).load(TOLD)
    )


def test_ids_that_are_numbers(tmp_path: Path, refusal: Refusal) -> None:
    told = replace(TOLD, identities=lambda: (np.arange(4) + 100, NUMBERS))
    np.savez(tmp_path / "p.npz", id=np.arange(4, dtype=np.int32)[::-1] + 100, logits=SAID[::-1])
    source = Recorded(str(tmp_path / "p.npz"))
    assert of(source.load(told), *NUMBERS.tolist()) == SAID.tolist()
    said = refusal(lambda: source.load(TOLD))
    assert "expected ids such as 'd', 'a', 'c' as in the data, got 103, 102, 101" in said


def test_each_thing_that_is_wrong_with_ids_is_counted(tmp_path: Path, refusal: Refusal) -> None:
    file = tmp_path / "p.npz"

    def line(ids: list[str]) -> str:
        np.savez(file, id=np.array(ids), logits=np.zeros((len(ids), 3)))
        return refusal(lambda: Recorded(str(file)).load(TOLD))

    assert "for each of 4 samples, got 2 samples without a row (a, d)" in line(["b", "c"])
    assert "got 2 rows of no sample (x, y)" in line(["a", "b", "c", "d", "x", "y"])
    assert "got 3 rows of a sample that has one already (a, a, d)" in line(
        ["a", "a", "a", "b", "c", "d", "d"]
    )
    all_at_once = line(["a", "a", "b", "x"])
    assert "2 samples without a row (c, d); 1 rows of no sample (x); 1 rows of a" in all_at_once
    assert "4 samples without a row (a, b, c and 1 more); 1 rows of no sample (q)" in line(["q"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(bad: float, tmp_path: Path, refusal: Refusal) -> None:
    values = SAID.copy()
    values[1, 2] = values[1, 0] = values[3, 0] = bad
    np.savez(tmp_path / "p.npz", id=IDS, logits=values)
    said = refusal(lambda: Recorded(str(tmp_path / "p.npz")).load(TOLD))
    assert "3 values are NaN or infinite, in 2 rows of 4, first in row 1" in said


def test_logits_that_are_called_probabilities(tmp_path: Path, refusal: Refusal) -> None:
    np.savez(tmp_path / "p.npz", id=IDS, probabilities=SAID)
    source = Recorded(str(tmp_path / "p.npz"))
    assert "got 4 rows of 4 that do not, first row 0" in refusal(lambda: source.load(TOLD))
    assert "it says 'probabilities', got probabilities: false" in refusal(
        lambda: replace(source, probabilities=False).load(TOLD)
    )


def test_shapes_and_types(tmp_path: Path, refusal: Refusal) -> None:
    file = tmp_path / "p.npz"

    def line(**arrays: Any) -> str:
        np.savez(file, **arrays)
        return refusal(lambda: Recorded(str(file)).load(TOLD))

    assert "no array 'id' with the ids; did you mean 'ids'?" in line(ids=IDS, logits=SAID)
    assert "expected either 'logits' or 'probabilities'" in line(id=IDS)
    assert "logits and probabilities" in line(id=IDS, logits=SAID, probabilities=SAID)
    assert "expected 4 ids, one for each row, got shape (3,)" in line(id=IDS[:3], logits=SAID)
    assert "whole numbers or texts, none missing, got float64" in line(id=SAID[:, 0], logits=SAID)
    assert "(samples, classes >= 2), got (4,)" in line(id=IDS, logits=SAID[:, 0])
    assert "(samples, classes >= 2), got (4, 1)" in line(id=IDS, logits=SAID[:, :1])
    assert "expected values that are numbers, got <U1" in line(id=IDS, logits=IDS)
    assert "expected values (samples, classes), got a single number" in line(id=IDS, logits=1.0)
    assert "names: expected a name for each class" in line(id=IDS, logits=SAID, names="ant")


def test_tables_that_do_not_fit(tmp_path: Path, refusal: Refusal) -> None:
    file = tmp_path / "p.parquet"

    def line(**columns: Any) -> str:
        source = Recorded(table(file, **columns), probabilities=False)
        return refusal(lambda: source.load(TOLD))

    assert "no column 'id' with the ids" in line(key=IDS, ant=SAID[:, 0])
    assert "beside 'id'; text hold something else" in line(id=IDS, ant=SAID[:, 0], text=IDS)
    assert "column 'logits': expected lists of one length, got length 1, length 3" in line(
        id=IDS, logits=[[1.0], [1.0, 2.0, 3.0], [1.0], [1.0]]
    )
    assert "got no list" in line(id=IDS, logits=SAID[:, 0])
    assert "column 'logits': expected lists of numbers" in line(id=IDS, logits=[["a", "b"]] * 4)
    assert "(samples, classes >= 2), got (4, 1)" in line(id=IDS, ant=SAID[:, 0])
    assert "none missing, got object" in line(id=pa.array(["a", None, "b", "c"]), ant=SAID[:, 0])
    missing = line(id=IDS, ant=pa.array([1.0, None, 2.0, 3.0]), bee=SAID[:, 0])
    assert "1 values are NaN or infinite" in missing


@pytest.mark.parametrize("ending", [".npy", ".npz", ".parquet"])
def test_damaged_files(ending: str, tmp_path: Path, refusal: Refusal) -> None:
    file = tmp_path / f"p{ending}"
    source = Recorded(str(file), probabilities=False)

    def line() -> str:
        return refusal(lambda: source.load(TOLD))

    assert "found no such file" in line()
    file.touch()
    assert "got an empty file" in line()
    if ending == ".npy":
        np.save(file, SAID)
    elif ending == ".npz":
        np.savez(file, id=IDS, logits=SAID)
    else:
        table(file, id=IDS, ant=SAID[:, 0], bee=SAID[:, 1])
    whole = file.read_bytes()
    for share in (0.1, 0.5, 0.9):
        file.write_bytes(whole[: int(share * len(whole))])
        assert "truncated" in line()
    file.write_bytes(pickle.dumps(SAID))
    assert "got a pickle" in line()


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_a_file_that_says_to_be_larger_than_it_is(
    ending: str, tmp_path: Path, refusal: Refusal
) -> None:
    header = io.BytesIO()
    said = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 300)}
    np.lib.format.write_array_header_1_0(header, said)
    file = tmp_path / f"p{ending}"
    file.write_bytes(header.getvalue())
    if ending == ".npz":
        np.savez(file, id=IDS)
        with zipfile.ZipFile(file, "a") as held:
            held.writestr("logits.npy", header.getvalue())
    source = Recorded(str(file), probabilities=None if ending == ".npz" else False)
    assert "truncated" in refusal(lambda: source.load(TOLD))


def test_objects_are_not_unpickled(tmp_path: Path, refusal: Refusal) -> None:
    np.save(tmp_path / "p.npy", np.array([{}, []], object), allow_pickle=True)
    source = Recorded(str(tmp_path / "p.npy"), probabilities=False)
    assert "holds Python objects" in refusal(lambda: source.load(TOLD))
    np.savez(tmp_path / "p.npz", id=np.array(["a", None], object), logits=SAID)
    assert "holds Python objects" in refusal(lambda: Recorded(str(tmp_path / "p.npz")).load(TOLD))
    (tmp_path / "p.csv").write_text("id,ant\n")
    assert "expected a file .npy or .npz or .parquet, got '.csv'" in refusal(
        lambda: Recorded(str(tmp_path / "p.csv")).load(TOLD)
    )


def test_a_sample_of_which_nothing_is_recorded(make: Any, refusal: Refusal) -> None:
    case = make("recorded")
    network = case.source.load(case.told).network
    assert "nothing is recorded of 2 samples, such as number 8" in refusal(
        lambda: network.of(torch.tensor([3, 8, 101]))
    )
    with pytest.raises(TypeError, match="by the numbers of samples"):
        network(torch.zeros(1, 3, 8, 8))


def test_data_without_ids(make: Any, refusal: Refusal) -> None:
    case = make("recorded")
    said = refusal(lambda: case.source.load(replace(case.told, identities=None)))
    assert "the data gives its samples no ids" in said


def test_the_numbers_of_the_samples_are_in_the_digest(make: Any) -> None:
    case = make("recorded")
    ids, numbers = case.told.identities()
    other = replace(case.told, identities=lambda: (ids, numbers[::-1]))
    assert case.source.load(other).digest != case.source.load(case.told).digest

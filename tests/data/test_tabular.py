"""Tables: numbers, categories, gaps, and how they are standardised."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from ensemble_kd.data import InMemory, Munge, Tabular
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

Cell = str | float | None


def rows(count: int = 60) -> list[dict[str, Cell]]:
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"row {number}",
            "size": round(float(rng.normal(3, 2)), 3),
            "colour": ("red", "blue", "green")[number % 3],
            "zip": 80_000 + number % 4,
            "on": ("true", "false")[number % 2],
            "label": ("yes", "no")[number % 2],
        }
        for number in range(count)
    ]


def write(rows: Sequence[Mapping[str, Cell]], path: str = "table.csv") -> Path:
    lines = [",".join(rows[0])]
    lines += [",".join("" if cell is None else str(cell) for cell in r.values()) for r in rows]
    Path(path).write_text("\n".join(lines) + "\n")
    return Path(path)


def single(cells: Iterable[Any]) -> list[float]:
    """Numbers as they are in single precision."""
    return np.array(list(cells), np.float32).tolist()  # type: ignore[no-any-return]


def test_a_table_from_csv() -> None:
    source = Tabular(write(rows()), id="id", categorical=["zip"])
    train, test, classes, names, val, unscaled, columns = source.load()
    assert test is val is None
    assert (classes, names) == (2, ("no", "yes"))
    assert train.inputs.shape == (60, 1 + 3 + 4 + 2)
    assert train.inputs.dtype == np.float32
    assert train.inputs[:, 0].tolist() == single(row["size"] for row in rows())
    assert train.labels.tolist() == [1, 0] * 30
    assert train.ids is not None
    assert train.ids[7] == "row 7"
    assert list(unscaled) == list(range(1, 10))
    assert [each["column"] for each in columns] == ["size"] + ["colour"] * 3 + ["zip"] * 4 + [
        "on"
    ] * 2


def test_chosen_features() -> None:
    path = write(rows())
    only = Tabular(path, features=["zip", "size"]).load()
    assert only.train.inputs[:2, 0].tolist() == [80_000, 80_001]
    without = Tabular(path, exclude=["id", "zip", "colour"]).load()
    assert [each["column"] for each in without.columns] == ["size", "on", "on"]
    codes = Tabular(path, exclude=["id"], encoding="codes").load()
    assert codes.unscaled == []
    assert codes.train.inputs.shape == (60, 4)


def test_a_table_from_parquet_with_official_parts() -> None:
    made = rows()
    table = pa.table({name: [row[name] for row in made] for name in made[0] if name != "id"})
    parquet.write_table(table, "table.parquet")
    parquet.write_table(table.slice(0, 9), "test.parquet")
    parts = Tabular("table.parquet", test_path="test.parquet").load()
    assert parts.test is not None
    assert parts.test.inputs.tolist() == parts.train.inputs[:9].tolist()
    data = InMemory(Tabular("table.parquet", test_path="test.parquet"))
    assert data.sizes() == {"train": 51, "labelled": 51, "val": 9, "test": 9}


def reference_scaling(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation of the numbers that there are, by hand."""
    known = [value for value in values if not math.isnan(value)]
    mean = math.fsum(known) / len(known)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known))


def test_numbers_are_standardised_by_the_training_split() -> None:
    made = rows()
    for row in made[::7]:
        row["size"] = None
    source = Tabular(write(made), exclude=["id", "zip", "on"], missing="mean")
    data = InMemory(source, batch_size=42)
    (batch,) = data.train_dataloader()
    sizes = np.array([math.nan if row["size"] is None else float(row["size"]) for row in made])
    mean, std = reference_scaling(sizes[batch.index.numpy()].tolist())
    assert data.mean == pytest.approx((mean, 0, 0, 0))
    assert data.std == pytest.approx((std, 1, 1, 1))
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for each in loader:
            raw = sizes[each.index.numpy()]
            expected = np.where(np.isnan(raw), 0.0, (raw - mean) / std)
            np.testing.assert_allclose(each.inputs[:, 0].numpy(), expected, atol=1e-5)
            colours = [["blue", "green", "red"].index(str(made[k]["colour"])) for k in each.index]
            assert torch.equal(each.inputs[:, 1:], torch.eye(3)[colours])


def test_missing_categories_are_their_shares_in_the_training_split() -> None:
    made = rows()
    for row in made[::5]:
        row["colour"] = None
    data = InMemory(Tabular(write(made), features=["colour"], missing="mean"), batch_size=42)
    (batch,) = data.train_dataloader()
    said = [made[number]["colour"] for number in batch.index.tolist()]
    known = [each for each in said if each is not None]
    shares = [known.count(value) / len(known) for value in ("blue", "green", "red")]
    for each, inputs in zip(said, batch.inputs, strict=True):
        if each is None:
            assert inputs.tolist() == pytest.approx(shares)


def test_constant_columns_and_no_standardisation() -> None:
    made: list[dict[str, Cell]] = [{**row, "flat": 0.1} for row in rows()]
    path = write(made)
    data = InMemory(Tabular(path, features=["flat", "size"]))
    assert data.std[0] == 1.0  # type: ignore[index]
    assert next(iter(data.val_dataloader())).inputs[:, 0].abs().max() < 1e-6
    plain = InMemory(Tabular(path, features=["flat", "size"], standardise=False))
    assert (plain.mean, plain.std) == (0.0, 1.0)
    batch = next(iter(plain.val_dataloader()))
    assert batch.inputs[:, 1].tolist() == single(made[k]["size"] for k in batch.index)


def test_gaps_without_standardisation_are_filled_alike() -> None:
    made = rows()
    made[3]["size"] = None
    data = InMemory(Tabular(write(made), features=["size"], missing="mean", standardise=False))
    inputs = data._opened.known.inputs.index_select(0, torch.arange(60))[:, 0]
    sizes = [row["size"] for row in made]
    train: list[Any] = [sizes[k] for k in data._opened.rows.train if sizes[k] is not None]
    assert float(inputs[3]) == pytest.approx(np.mean(train))
    assert (data.mean, data.std) == (0.0, 1.0)


def test_a_column_without_values_in_the_training_split() -> None:
    made = [{"x": 1.0 if k == 3 else None, "y": k, "label": "ab"[k % 2]} for k in range(40)]
    for seed in range(20):
        data = InMemory(Tabular(write(made), missing="mean"), seed=seed)
        try:
            data.setup()
        except UserError as refusal:
            assert "column 0 has no value in the whole training split" in str(refusal)  # noqa: PT017
            return
    raise AssertionError("the one value was always in the training split")


def test_rows_without_a_label_and_made_up_rows() -> None:
    made = rows()
    for row in made[::3]:
        row["label"] = None
    source = Tabular(write(made), features=["size", "zip"])
    data = InMemory(source, batch_size=96, synthesise=Munge(), val_share=0.15, test_share=0.15)
    assert data.sizes() == {"train": 48, "labelled": 28, "val": 6, "test": 6}
    (batch,) = data.train_dataloader()
    assert batch.inputs.isfinite().all()
    assert batch.mask is not None
    assert int(batch.mask.sum()) == 28
    assert (batch.target[~batch.mask] == UNLABELLED).all()


def test_what_accompanies_a_student(tmp_path: Path) -> None:
    data = InMemory(Tabular(write(rows()), exclude=["id", "zip", "on"]))
    data.accompany(tmp_path)
    told = json.loads((tmp_path / "inputs.json").read_text())
    assert told["classes"] == ["no", "yes"]
    assert told["inputs"][0] == {"column": "size", "mean": data.mean[0], "std": data.std[0]}  # type: ignore[index]
    assert told["inputs"][1] == {"column": "colour", "is": "blue", "mean": 0.0, "std": 1.0}
    assert len(told["inputs"]) == data.inputs[0]
    assert not (tmp_path / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"label": "labell"},
            r"data\.source\.label: no column 'labell' in .*; did you mean 'label'",
        ),
        (
            {"features": ["sise"]},
            r"data\.source\.features: no column 'sise' .*; did you mean 'size'",
        ),
        ({"exclude": ["x"]}, r"data\.source\.exclude: no column 'x'"),
        ({"categorical": ["x"]}, r"data\.source\.categorical: no column 'x'"),
        ({"id": "label2"}, r"data\.source\.id: no column 'label2'"),
        ({"id": "colour"}, "ids must all be different, got 'red' in rows 1 and 4"),
        ({"exclude": ["id", "size", "colour", "zip", "on"]}, "expected columns to learn from, got"),
        (
            {"path": "index.csv"},
            r"column 1 has no name; row numbers that pandas wrote are left out",
        ),
        ({"test_path": "other.csv"}, "other.csv: label 'maybe' in row 1 is none of the 2 classes"),
        ({"test_path": "fewer.csv"}, r"features: no column 'colour' in .*fewer\.csv"),
    ],
)
def test_tables_that_cannot_be_read(arguments: dict[str, Any], message: str) -> None:
    write(rows(), "table.csv")
    write([{"": number, **row} for number, row in enumerate(rows())], "index.csv")
    write([{**rows()[0], "label": "maybe"}], "other.csv")
    write(
        [{name: row[name] for name in ("id", "size", "zip", "on", "label")} for row in rows()],
        "fewer.csv",
    )
    with pytest.raises(UserError, match=message) as raised:
        Tabular(**{"path": "table.csv", **arguments}).load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [{"features": []}, {"features": ["label"]}, {"features": ["size"], "exclude": ["zip"]}],
)
def test_features_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="features must be columns beside the label 'label'"):
        Tabular("table.csv", **arguments)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from ensemble_kd.data import InMemory, TextTable, WordPiece
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

ROWS = 'sentence,other,label,key\n"good, film",x,pos,k1\nbad,y,neg,k2\n,z,pos,k3\nso so,w,,k4\n'


@pytest.fixture
def path() -> Path:
    file = Path("train.csv").absolute()
    file.write_text(ROWS)
    return file


def test_one_text(path: Path) -> None:
    train, test, classes, names, val, *_ = TextTable(path, ["sentence"]).load()
    assert train.inputs.texts == (("good, film",), ("bad",), ("",), ("so so",))
    assert not train.inputs.words
    assert train.labels.tolist() == [1, 0, 1, UNLABELLED]
    assert train.ids is None
    assert test is val is None
    assert (classes, names) == (2, ("neg", "pos"))


def test_pairs_ids_names_and_a_limit(path: Path) -> None:
    source = TextTable(path, ["sentence", "other"], id="key", names=["pos", "neg", "so"], limit=3)
    train, _, classes, names, *_ = source.load()
    assert train.inputs.texts[0] == ("good, film", "x")
    assert train.labels.tolist() == [0, 1, 0]
    assert train.ids is not None
    assert train.ids.tolist() == ["k1", "k2", "k3"]
    assert (classes, names) == (3, ("pos", "neg", "so"))


def test_official_parts_of_other_formats(path: Path) -> None:
    Path("val.tsv").write_text("label\tsentence\nneg\tanother\n")
    parquet.write_table(pa.table({"sentence": ["last"], "label": ["pos"]}), "test.parquet")
    source = TextTable(path, ["sentence"], val_path="val.tsv", test_path="test.parquet")
    parts = source.load()
    assert parts.val is not None
    assert parts.test is not None
    assert (parts.val.inputs.texts, parts.val.labels.tolist()) == ((("another",),), [0])
    assert (parts.test.inputs.texts, parts.test.labels.tolist()) == ((("last",),), [1])


def test_labels_by_number(path: Path) -> None:
    Path("n.csv").write_text("sentence,label\na,1\nb,0\nc,1\n")
    train, *_ = TextTable("n.csv", ["sentence"], names=["bad", "good"]).load()
    assert train.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": ["text"]}, r"data\.source\.text: no column 'text' in .*train\.csv; known: key, "),
        ({"label": "lable"}, r"data\.source\.label: no column 'lable' in .*did you mean 'label'"),
        ({"id": "other one"}, r"data\.source\.id: no column 'other one'"),
        ({"names": ["pos", "bad"]}, "label 'neg' in row 2 is none of the 2 classes"),
        (
            {"val_path": "test.csv"},
            "test.csv: label 'bad' in row 1 is none of the 2 classes of the",
        ),
        ({"test_path": "none.csv"}, "none.csv: expected a label in every row, got none in row 1"),
        ({"path": "absent.csv", "remedy": "get it at home"}, "absent.csv; get it at home"),
        ({"limit": 9}, "limit must be between 1 and 4, got 9"),
    ],
)
def test_what_cannot_be_read(path: Path, arguments: dict[str, Any], message: str) -> None:
    Path("test.csv").write_text("sentence,label\na,bad\n")
    Path("none.csv").write_text("sentence,label\na,\n")
    with pytest.raises(UserError, match=message) as raised:
        TextTable(**{"path": path, "text": ["sentence"], **arguments}).load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", [[], ["a", "b", "c"]])
def test_as_many_columns_as_a_pair_has(text: list[str]) -> None:
    with pytest.raises(ValueError, match="text must be one column or the two of pairs"):
        TextTable("a.csv", text)


def test_batches() -> None:
    rows = [f"word{number % 7} text,{['no', 'yes', ''][number % 3]}" for number in range(60)]
    Path("many.csv").write_text("sentence,label\n" + "\n".join(rows) + "\n")
    kind = WordPiece(64, min_frequency=1)
    data = InMemory(TextTable("many.csv", ["sentence"]), batch_size=8, tokenizer=kind)
    assert data.sizes() == {"train": 48, "labelled": 28, "val": 6, "test": 6}
    batch = next(iter(data.train_dataloader()))
    assert batch.mask is not None
    for number, mask, target in zip(batch.index, batch.mask, batch.target, strict=True):
        assert bool(mask) == (int(number) % 3 < 2)
        assert int(target) == (int(number) % 3 if mask else UNLABELLED)


def test_the_real_sentences(real_texts: Path) -> None:
    folder = real_texts / "sst2"
    paths = {f"{part}_path": folder / f"{name}.tsv.gz" for part, name in (("val", "dev"),)}
    source = TextTable(folder / "train.tsv.gz", ["sentence"], **paths)  # type: ignore[arg-type]
    parts = source.load()
    assert parts.val is not None
    assert (len(parts.train.labels), len(parts.val.labels)) == (6920, 872)
    assert int(parts.train.labels.sum()) == 3610
    assert parts.train.inputs.texts[1][0].startswith("apparently reassembled from the cutting")

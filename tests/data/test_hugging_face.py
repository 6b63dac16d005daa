"""Data sets of the library datasets, written by the test itself; nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.data import HuggingFace, InMemory, WordPiece
from ensemble_kd.data.hugging_face_splits import chosen
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

datasets = pytest.importorskip("datasets")

KIND = WordPiece(64, min_frequency=1)


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def table(columns: dict[str, list[Any]], kinds: dict[str, Any] | None = None) -> Any:
    made = datasets.Dataset.from_dict(columns)
    for name, kind in (kinds or {}).items():
        made = made.cast_column(name, kind)
    return made


def classes(*names: str) -> Any:
    return datasets.ClassLabel(names=list(names))


def texts(count: int = 40, first: int = 0) -> Any:
    return table(
        {
            "sentence": [f"text number {number}" for number in range(first, first + count)],
            "other": ["more"] * count,
            "label": [number % 3 - 1 for number in range(count)],
            "key": list(range(first, first + count)),
        },
        {"label": classes("bad", "good")},
    )


def saved(folder: str = "saved", **splits: Any) -> str:
    datasets.DatasetDict(splits).save_to_disk(folder)
    return folder


def test_texts_from_a_folder_that_was_saved() -> None:
    labelled = texts(6, 100).filter(lambda row: row["label"] >= 0)
    source = HuggingFace(saved(train=texts(), validation=labelled), text=["sentence"], id="key")
    train, test, count, names, val, *_ = source.load()
    assert test is None
    assert val is not None
    assert (count, names) == (2, ("bad", "good"))
    assert train.labels.tolist() == [UNLABELLED, 0, 1] * 13 + [UNLABELLED]
    assert train.inputs.texts[7] == ("text number 7",)
    assert train.ids is not None
    assert train.ids.tolist() == list(range(40))
    assert val.labels.tolist() == [0, 1, 0, 1]
    data = InMemory(source, batch_size=8, tokenizer=KIND)
    assert data.sizes() == {"train": 36, "labelled": 22, "val": 4, "test": 4}
    assert next(iter(data.val_dataloader())).index.tolist() == [40, 41, 42, 43]


def test_one_split_pairs_and_a_limit() -> None:
    texts().save_to_disk("one")
    source = HuggingFace("one", text=["sentence", "other"], limit=5, names=["no", "yes"])
    train, _, _, names, *_ = source.load()
    assert train.inputs.texts[4] == ("text number 4", "more")
    assert names == ("no", "yes")
    with pytest.raises(UserError, match="limit must be between 1 and 40, got 41"):
        HuggingFace("one", text=["sentence"], limit=41).load()


def test_splits_by_their_names_or_none(tmp_path: Path) -> None:
    known = texts(6, 100).filter(lambda row: row["label"] >= 0)
    folder = saved(train=texts(), dev=known, test=texts(3, 200), extra=known)
    parts = HuggingFace(folder, text=["sentence"], test=None).load()
    assert (parts.test, parts.val is not None) == (None, True)
    parts = HuggingFace(folder, text=["sentence"], val=None, test="extra").load()
    assert parts.val is None
    assert parts.test is not None
    # What is taken by its name must be labelled, as any test part.
    with pytest.raises(UserError, match=r"saved \(test\): expected a label in every row, got none"):
        HuggingFace(folder, text=["sentence"]).load()


def test_a_split_without_any_label_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = texts(9, 200).filter(lambda row: row["label"] < 0)
    folder = saved(train=texts(), test=unknown)
    source = HuggingFace(folder, text=["sentence"])
    assert source.load().test is None
    line = "data: saved (test) is left out, since none of its labels is known\n"
    assert capsys.readouterr().err == line
    assert InMemory(source, batch_size=8, tokenizer=KIND).sizes()["test"] > 0
    with pytest.raises(UserError, match=r"saved \(test\): expected a label in every row, got none"):
        HuggingFace(folder, text=["sentence"], test="test").load()


def test_labels_that_are_no_numbers_are_not_known() -> None:
    labels = [0.0, 1.0, float("nan"), -100.0, None]
    table({"sentence": ["a", "b", "c", "d", "e"], "label": labels}).save_to_disk("floats")
    parts = HuggingFace("floats", text=["sentence"]).load()
    assert parts.names == ("0", "1")
    assert parts.train.labels.tolist() == [0, 1, UNLABELLED, UNLABELLED, UNLABELLED]


def test_numbers_count_only_names_that_were_given() -> None:
    named = table({"sentence": ["a", "b"], "label": ["good", "bad"]})
    folder = saved(train=named, test=table({"sentence": ["c"], "label": ["1"]}))
    found = HuggingFace(folder, text=["sentence"], names=["good", "bad"]).load().test
    assert found is not None
    assert found.labels.tolist() == [1]
    with pytest.raises(UserError, match=r"label '1' in row 1 .*; numbers count the classes where"):
        HuggingFace(folder, text=["sentence"]).load()


def test_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na b,pos\nc,neg\nd,\n")
    (folder / "test.csv").write_text("text,label\ne,neg\n")
    source = HuggingFace(folder, text=["text"], cache=tmp_path / "cache")
    parts = source.load()
    assert parts.names == ("neg", "pos")
    assert parts.train.labels.tolist() == [1, 0, UNLABELLED]
    assert parts.test is not None
    assert parts.test.inputs.texts == (("e",),)
    assert (tmp_path / "cache").is_dir()


@pytest.mark.parametrize("as_classes", [True, False])
def test_words_with_tags(as_classes: bool) -> None:
    names = ["O", "B-x", "I-x"]
    numbers = [[1, 2, 0], [0], None, [-100, -100]]
    tags: Any = numbers
    if not as_classes:
        tags = [None if each is None else [names[k] for k in each if k >= 0] for each in numbers]
        tags[3] = None
    made = table({"tokens": [["a", "b", "c"], ["d"], ["e"], ["f", "g"]], "ner_tags": tags})
    if as_classes:
        made = made.cast_column("ner_tags", datasets.List(classes(*names)))
    made.save_to_disk("words")
    train, _, count, found, *_ = HuggingFace("words", "ner_tags", tokens="tokens").load()
    assert (count, found) == (3, ("O", "B-x", "I-x"))
    gap = UNLABELLED
    assert train.labels.tolist() == [[1, 2, 0], [0, gap, gap], [gap] * 3, [gap] * 3]
    assert train.inputs.words


def test_the_hub_is_asked_for_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*arguments: Any, **named: Any) -> Any:
        asked.append((arguments, named))
        return datasets.DatasetDict(train=texts())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    HuggingFace("glue", text=["sentence"], revision="abc", subset="sst2", cache="kept").load()
    assert asked == [(("glue", "sst2"), {"revision": "abc", "cache_dir": "kept"})]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "glue"}, r"no folder 'glue'; to download it from the Hugging Face hub, name the"),
        ({"path": "./gone"}, r"data\.source\.path: no folder .*gone"),
        ({"path": "empty"}, r"data\.source\.path: empty cannot be read as a data set: "),
        (
            {"text": ["sentense"]},
            r"data\.source\.text: no column 'sentense' in saved \(train\); did",
        ),
        ({"text": ["key"]}, "column 'key' must hold texts, got int in row 1"),
        ({"label": "lable"}, r"data\.source\.label: no column 'lable' in saved"),
        ({"train": "training"}, r"data\.source\.train: no split 'training' in saved; did you mean"),
        ({"val": "validation"}, r"data\.source\.val: no split 'validation' in saved"),
        ({"names": ["a", "b", "c"]}, r"data\.source\.names: expected 2, one for each class of sav"),
        ({"text": None, "image": "sentence"}, "column 'sentence' must hold images, got Value"),
        ({"id": "other"}, "ids must all be different, got 'more'"),
    ],
)
def test_data_sets_that_cannot_be_read(arguments: dict[str, Any], message: str) -> None:
    saved(train=texts())
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message) as raised:
        HuggingFace(**{"path": "saved", "text": ["sentence"], **arguments}).load()
    assert "\n" not in str(raised.value)


def test_a_split_without_rows() -> None:
    found = {"train": texts(), "none": texts().select([])}
    with pytest.raises(UserError, match=r"saved \(none\) holds no rows"):
        chosen(found, {"train": "train", "test": "none"}, "saved")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([["O"], ["O", "B-x"]], "a tag for each of 2 words of text 1, got 1"),
        ([["O", None], ["O"]], "expected tags for all words of a text or for none, got some"),
        ([["O", "O"], ["O"]], "expected at least 2 different tags, got 1"),
    ],
)
def test_tags_that_do_not_fit(tags: list[list[str | None]], message: str) -> None:
    table({"tokens": [["a", "b"], ["c"]], "tags": tags}).save_to_disk("tags")
    with pytest.raises(UserError, match=message):
        HuggingFace("tags", "tags", tokens="tokens").load()


def test_labels_and_tags_of_another_kind() -> None:
    table({"tokens": [["a"]], "tags": ["O"]}).save_to_disk("flat")
    with pytest.raises(UserError, match="expected lists of tags, got str"):
        HuggingFace("flat", "tags", tokens="tokens").load()
    table({"tokens": ["a b"], "tags": [["O", "B"]]}).save_to_disk("unsplit")
    with pytest.raises(UserError, match="column 'tokens' must hold lists of words, see row 1"):
        HuggingFace("unsplit", "tags", tokens="tokens").load()
    folder = saved("other", train=texts(), test=table({"sentence": ["a"], "label": ["fine"]}))
    with pytest.raises(UserError, match=r"other \(test\): label 'fine' in row 1 is none of the 2"):
        HuggingFace(folder, text=["sentence"]).load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of image, text and tokens"),
        ({"image": "a", "tokens": "b"}, "exactly one of image, text and tokens"),
        ({"text": []}, "text must be one column or the two of pairs"),
        ({"image": "a", "size": [4]}, r"size must be \[height, width\]"),
        ({"image": "a", "channels": 2}, "channels must be 1, 3 or null"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HuggingFace("saved", **arguments)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"'datasets': pip install ensemble-kd\[text\]"):
        HuggingFace("saved", text=["sentence"]).load()

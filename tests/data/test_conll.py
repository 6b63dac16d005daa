from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.data import Conll, InMemory, WordPiece
from ensemble_kd.data.conll import Sentence, tagged
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

TRAIN = "Ann\tB-per\nmet\tO\nBo\tB-per\n\nso\n\n\nParis\tB-loc\n"
NAMES = ("O", "B-loc", "B-per")


def file(content: str | bytes, name: str = "train.conll") -> Path:
    path = Path(name).absolute()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        TRAIN,
        TRAIN.replace("\n", "\r\n"),
        "\ufeff" + TRAIN,
        TRAIN.rstrip("\n"),
        "-DOCSTART-\t-X-\n\n" + TRAIN,
        TRAIN.replace("\t", "\tNN\t"),
        TRAIN.replace("\t", " NN "),
        gzip.compress(TRAIN.encode()),
    ],
    ids=["plain", "crlf", "mark", "no end", "document", "columns", "blanks", "packed"],
)
def test_words_and_tags(content: str | bytes) -> None:
    name = "train.conll.gz" if isinstance(content, bytes) else "train.conll"
    train, test, classes, names, val, *_ = Conll(file(content, name)).load()
    assert train.inputs.texts == (("Ann", "met", "Bo"), ("so",), ("Paris",))
    assert train.inputs.words
    assert (classes, names) == (3, NAMES)
    gap = UNLABELLED
    assert train.labels.tolist() == [[2, 0, 2], [gap] * 3, [1, gap, gap]]
    assert test is val is None


def test_only_line_feeds_end_lines() -> None:
    train, *_ = Conll(file("a\u2028b\tO\nc\x85\tB-x\n")).load()
    assert train.inputs.texts == (("a\u2028b", "c"),)


def test_parts_limit_and_names() -> None:
    test = file("Bo\tB-per\n", "test.conll")
    source = Conll(file(TRAIN), val_path=test, test_path=test, names=NAMES[::-1], limit=1)
    parts = source.load()
    assert parts.names == NAMES[::-1]
    assert parts.train.labels.tolist() == [[0, 2, 0]]
    assert parts.val is not None
    assert parts.val.labels.tolist() == [[0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.conll is empty"),
        ("\n\n", "train.conll holds no texts"),
        ("a\tO\nb\n", r"expected WORD<TAB>TAG in line 2, got 'b'; in a text, either all words"),
        ("a\nb\tO\n", "in line 2, got"),
        ("\tO\n", "in line 1, got 'O'"),
        (b"\xe4\tO\n", "is not UTF-8; convert it"),
        ("a\tO\nb\tO\n", "expected at least 2 different tags, got O"),
        ("a\n\nb\n", "expected at least 2 different tags, got none"),
    ],
)
def test_files_that_cannot_be_read(content: str | bytes, message: str) -> None:
    path = file(content)
    with pytest.raises(UserError, match=message) as raised:
        Conll(path).load()
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a\tB-lok\n",
            r"tag 'B-lok' of text 1 is none of the training part's 3; did you mean 'B-l",
        ),
        ("a\tO\n\nb\n", "expected tags, got none in text 2; only those of the training part"),
    ],
)
def test_parts_that_do_not_fit(content: str, message: str) -> None:
    other = file(content, "other.conll")
    with pytest.raises(UserError, match=message) as raised:
        Conll(file(TRAIN), test_path=other).load()
    assert str(raised.value).startswith(str(other))


def test_absent_files_and_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"no file .*nowhere; get it at home"):
        Conll("nowhere", remedy="get it at home").load()
    with pytest.raises(UserError, match="cannot be unpacked: it is truncated or not gzip"):
        Conll(file(TRAIN, "train.gz")).load()
    arguments: list[Any] = [{"limit": 0}, {"names": ["O"]}]
    for given, message in zip(arguments, ("limit must be >= 1", "names must be"), strict=True):
        with pytest.raises(ValueError, match=message):
            Conll("train.conll", **given)


@pytest.mark.parametrize("tags", [["O"], ["O", "O", "O"], []])
def test_a_tag_for_each_word(tags: list[str]) -> None:
    with pytest.raises(UserError, match=rf"a tag for each of 2 words of text 1, got {len(tags)}"):
        tagged([Sentence(["a", "b"], tags)], NAMES, "here", partly=True)


def test_the_real_messages(real_texts: Path) -> None:
    folder = real_texts / "wnut17"
    source = Conll(folder / "train.conll.gz", folder / "dev.conll.gz", folder / "test.conll.gz")
    parts = source.load()
    counts = {
        part: (len(samples.inputs), int((samples.labels != UNLABELLED).sum()))
        for part, samples in parts.held().items()
    }
    assert counts == {"train": (3394, 62730), "val": (1009, 15733), "test": (1287, 23394)}
    entities = sum(int((parts.train.labels == k).sum()) for k in range(1, 13, 2))
    assert entities == 1975
    assert parts.names[:3] == ("O", "B-corporation", "I-corporation")
    data = InMemory(source, tokenizer=WordPiece(2000, lower=False), length=400)
    places = [batch.places for batch in data.test_dataloader()]
    # Every word has its place, also those that are no text.
    assert sum(int(each.sum()) for each in places if each is not None) == 23394

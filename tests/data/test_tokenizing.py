"""Tokenizers: learned from texts, the same in every process, or read from a file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from ensemble_kd.data import Pretrained, Tokenizing, WordLevel, WordPiece, Written, written
from ensemble_kd.data.tokenizing import SPECIAL, as_tokenizing, special, vocabulary_of
from ensemble_kd.errors import UserError

Make = Callable[..., list[str]]


def some(texts: Make) -> Written:
    return written([(text,) for text in texts(200)], "here")


@pytest.mark.parametrize("kind", [WordPiece(120), WordLevel(40)])
def test_special_tokens_come_first_and_stand_around_a_text(texts: Make, kind: Tokenizing) -> None:
    tokenizer = kind.fitted(some(texts))
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3, 4]
    assert tokenizer.encode("good film").tokens == ["[CLS]", "good", "film", "[SEP]"]
    pair = tokenizer.encode("good", "film")
    assert pair.tokens == ["[CLS]", "good", "[SEP]", "film", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 1, 1]
    assert tokenizer.encode("[MASK] film").tokens[1] == "[MASK]"
    assert tokenizer.padding is None
    assert tokenizer.truncation is None


def test_word_pieces(texts: Make) -> None:
    tokenizer = WordPiece(120).fitted(some(texts))
    assert tokenizer.get_vocab_size() <= 120
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))
    said = tokenizer.encode("goodfilm Good")
    assert said.tokens[1] == "good"
    assert said.tokens[2].startswith("##")
    assert said.tokens[-2] == "good"
    assert tokenizer.decode(said.ids) == "goodfilm good"
    assert tokenizer.encode("☃").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    with_case = WordPiece(120, lower=False).fitted(some(texts))
    assert "[UNK]" in with_case.encode("GOOD").tokens


def test_the_most_frequent_words() -> None:
    texts = written([("b b b c c a Ä",), ("b c",)], "here")
    tokenizer = WordLevel(16, min_frequency=2).fitted(texts)
    # The capital letter loses its dots and then counts as an a.
    assert sorted(set(tokenizer.get_vocab()) - set(SPECIAL)) == ["a", "b", "c"]
    rare = WordLevel(16, lower=False, min_frequency=1).fitted(texts)
    assert sorted(set(rare.get_vocab()) - set(SPECIAL)) == ["a", "b", "c", "Ä"]


def test_only_the_most_frequent_characters_are_kept() -> None:
    """Of equally frequent ones those with the lowest code points, wherever they occur."""
    letters = [chr(0x3B1 + number) for number in range(16)]
    tokenizer = WordPiece(40, min_frequency=2).fitted(
        written([("zzz zz",), *((letter,) for letter in reversed(letters))], "here")
    )
    known = [letter for letter in letters if tokenizer.token_to_id(letter) is not None]
    assert known == letters[:9]
    assert tokenizer.token_to_id("z") is not None
    assert tokenizer.get_vocab_size() <= 40


TRAIN = """
import hashlib, sys
from ensemble_kd.data import WordLevel, WordPiece, written
rows = open(sys.argv[1], encoding="utf-8").read().splitlines()
texts = written([(row,) for row in rows], "here")
for kind in (WordPiece(120), WordLevel(40)):
    print(hashlib.sha256(kind.fitted(texts).to_str().encode()).hexdigest())
"""


@pytest.mark.slow
def test_another_process_learns_the_same(texts: Make, tmp_path: Path) -> None:
    """The library by itself numbers pieces inside words differently in each."""
    rows = texts(400)
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(rows), encoding="utf-8")
    command = [sys.executable, "-c", TRAIN, str(path)]
    there = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
    held = written([(row,) for row in rows], "here")
    kinds: list[Tokenizing] = [WordPiece(120), WordLevel(40)]
    here = [hashlib.sha256(kind.fitted(held).to_str().encode()).hexdigest() for kind in kinds]
    assert here == there


def test_a_tokenizer_from_a_file_or_its_folder(texts: Make, tmp_path: Path) -> None:
    own = WordPiece(120).fitted(some(texts))
    own.enable_truncation(5)
    own.enable_padding(length=5)
    own.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        found = Pretrained(str(path)).fitted(some(texts))
        assert found.get_vocab() == own.get_vocab()
        # Padding and truncation are the data's to say.
        assert (found.padding, found.truncation) == (None, None)


def test_a_tokenizer_from_the_hub(monkeypatch: pytest.MonkeyPatch, texts: Make) -> None:
    asked: list[Any] = []

    class Hub:
        @staticmethod
        def from_pretrained(name: str, revision: str) -> Tokenizer:
            asked.append((name, revision))
            return Tokenizer(models.WordLevel({"a": 0}, "a"))

    monkeypatch.setattr("tokenizers.Tokenizer", Hub)
    Pretrained("who/what", "abc").fitted(some(texts))
    assert asked == [("who/what", "abc")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nobody/nothing", "no file or folder 'nobody/nothing'; to download .* name the commit"),
        ("./nowhere", r"data\.tokenizer\.path: no file .*nowhere"),
        ("/nowhere", r"data\.tokenizer\.path: no file /nowhere"),
        ("damaged.json", "damaged.json cannot be read as a tokenizer: "),
        ("empty", r"empty/tokenizer\.json; transformers writes one"),
    ],
)
def test_tokenizers_that_are_not_there(path: str, message: str, texts: Make) -> None:
    Path("damaged.json").write_text("{}")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message) as raised:
        Pretrained(path).fitted(some(texts))
    assert "\n" not in str(raised.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, texts: Make) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for kind in (WordPiece(), WordLevel(), Pretrained("x")):
        with pytest.raises(UserError, match=r"pip install ensemble-kd\[text\]"):
            kind.fitted(some(texts))


@pytest.mark.parametrize("kind", [WordPiece, WordLevel])
def test_arguments_out_of_range(kind: type[WordPiece]) -> None:
    with pytest.raises(ValueError, match="size must be >= 16, got 15"):
        kind(15)
    with pytest.raises(ValueError, match="min_frequency must be >= 1, got 0"):
        kind(100, min_frequency=0)


def test_special_tokens_by_any_of_their_names() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<pad>": 1}, "a"))
    assert special(tokenizer, ("[PAD]", "<pad>")) == (1, "<pad>")
    assert special(tokenizer, ("[PAD]",)) is None


def test_an_embedding_has_a_row_for_every_number() -> None:
    assert vocabulary_of(Tokenizer(models.WordLevel({"a": 0, "b": 7}, "a"))) == 8


def test_a_tokenizer_that_is_named(texts: Make) -> None:
    Path("here").mkdir()
    assert as_tokenizing("here") == Pretrained("here")
    assert as_tokenizing("who/what@abc") == Pretrained("who/what", "abc")
    assert as_tokenizing("who/what") == Pretrained("who/what")
    assert as_tokenizing(None) is None
    assert as_tokenizing(WordPiece()) == WordPiece()

"""Texts as tokens, held against what the library says of each text by itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from ensemble_kd.data import Texts, WordPiece, Written, written
from ensemble_kd.data.texts import LONGEST, joined, of_length
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Tokens

Make = Callable[..., list[str]]


def opened(texts: Written, length: int | None = None) -> Texts:
    return Texts(texts, of_length(WordPiece(120, min_frequency=1).fitted(texts), length, texts))


def single(texts: Make, count: int = 40) -> Written:
    return written([(text,) for text in texts(count)], "here")


def reference_rows(texts: Written, tokenizer: Any, length: int) -> list[list[list[int]]]:
    """Ids, mask and kinds of each text, encoded alone and padded by hand."""
    tokenizer.no_padding()
    found = []
    for parts in texts.texts:
        if texts.words:
            one = tokenizer.encode(list(parts), is_pretokenized=True)
        else:
            one = tokenizer.encode(*parts)
        rest = length - len(one.ids)
        found.append(
            [one.ids + [0] * rest, [1] * len(one.ids) + [0] * rest, one.type_ids + [0] * rest]
        )
    return found


@pytest.mark.parametrize("length", [None, 5, 30])
@pytest.mark.parametrize("kind", ["single", "pairs", "words"])
def test_tokens_are_those_of_each_text_alone(texts: Make, kind: str, length: int | None) -> None:
    first, second = texts(40), texts(40, 1)
    rows: Any = [(text,) for text in first]
    if kind == "pairs":
        rows = list(zip(first, second, strict=True))
    elif kind == "words":
        rows = [text.split() for text in first]
    held = written(rows, "here", kind == "words")
    found = opened(held, length)
    chosen = torch.tensor([7, 0, 39, 7])
    tokens = found.index_select(0, chosen)
    assert isinstance(tokens, Tokens)
    assert tokens.ids.shape == (4, found.shape[1])
    assert [part.dtype for part in tokens] == [torch.int64, torch.bool, torch.int64, torch.uint8]
    expected = reference_rows(held, found.tokenizer, found.shape[1])
    for place, row in enumerate(chosen.tolist()):
        ids, mask, kinds = expected[row]
        assert tokens.ids[place].tolist() == ids
        assert tokens.mask[place].tolist() == [bool(each) for each in mask]
        assert tokens.kinds[place].tolist() == kinds
        text = bytes(tokens.text[place].tolist())
        assert text.rstrip(b"\0").split(b"\x1f") == [part.encode() for part in rows[row]]
    assert found.shape == (40, length or found.shape[1])
    if kind == "pairs":
        assert tokens.kinds.any()


def test_many_texts_are_those_of_few(texts: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    held = single(texts)
    whole = opened(held)
    monkeypatch.setattr("ensemble_kd.data.texts.AT_ONCE", 7)
    pieces = opened(held)
    rows = torch.arange(40)
    for one, other in zip(whole.index_select(0, rows), pieces.index_select(0, rows), strict=True):
        assert torch.equal(one, other)
    assert whole.digest == pieces.digest


def test_the_longest_text_decides_the_length(texts: Make) -> None:
    held = single(texts)
    found = opened(held)
    lengths = [len(each.ids) for each in map(found.tokenizer.encode, held.strings())]
    assert set(lengths) == {found.shape[1]}  # padded
    assert int(found.index_select(0, torch.arange(40)).mask.sum(dim=1).max()) == found.shape[1]
    assert found.cut == 0
    long = written([("good " * 500,), ("bad",)], "here")
    assert opened(long).shape == (2, LONGEST)
    assert opened(long).cut == 1
    assert opened(long, 4).index_select(0, torch.arange(2)).mask.sum(dim=1).tolist() == [4, 3]


def test_the_longer_text_of_a_pair_is_cut() -> None:
    held = written([("good film", "good " * 40)], "here")
    tokens = opened(held, 9).index_select(0, torch.tensor([0]))
    assert tokens.kinds[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_the_class_of_a_word_is_at_its_first_token() -> None:
    held = written([["goodfilm", "bad"], ["film"]], "here", words=True)
    tokenizer = WordPiece(120, min_frequency=1).fitted(
        written([("good film bad film good",)] * 3, "here")
    )
    found = Texts(held, of_length(tokenizer, 8, held))
    ids = found.index_select(0, torch.tensor([0])).ids[0].tolist()
    pieces = [str(found.tokenizer.id_to_token(number)) for number in ids]
    heads = [place for place, piece in enumerate(pieces) if piece[:1] not in "[#"]
    assert len(heads) == 2
    assert found.places is not None
    assert found.places[0].nonzero().flatten().tolist() == heads
    target = found.targets(np.array([[3, 1], [2, UNLABELLED]]))
    assert target[0, heads].tolist() == [3, 1]
    assert target[1].tolist() == [UNLABELLED, 2, *[UNLABELLED] * 6]
    assert (target[~found.places.numpy()] == UNLABELLED).all()


def test_words_beyond_the_length_have_no_place() -> None:
    held = written([["good"] * 10, ["bad"]], "here", words=True)
    found = opened(held, 6)
    assert found.places is not None
    assert found.places.sum(dim=1).tolist() == [4, 1]
    assert found.cut == 1
    assert (found.targets(np.ones((2, 10), np.int64)) == 1).sum() == 5


def test_a_word_of_which_the_tokenizer_leaves_nothing_is_unknown() -> None:
    held = written([["good", "\u200d", "bad"], ["\u0301"]], "here", words=True)
    found = opened(held, 8)
    tokens = found.index_select(0, torch.arange(2))
    names = [found.tokenizer.id_to_token(number) for number in tokens.ids[0].tolist()]
    assert names[:5] == ["[CLS]", "good", "[UNK]", "bad", "[SEP]"]
    assert found.places is not None
    assert found.places.sum(dim=1).tolist() == [3, 1]
    # What a network with a tokenizer of its own reads is what was written.
    assert bytes(tokens.text[0].tolist()).rstrip(b"\0").decode().split("\x1f")[1] == "\u200d"


def bare(words: list[str]) -> Tokenizer:
    """No special tokens around a text, and no unknown word."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_tokenizers_that_cannot_serve() -> None:
    held = written([("a b",), ("a",)], "here")
    with pytest.raises(
        UserError, match=r"data.tokenizer: expected a token for padding, .* got none"
    ):
        of_length(bare(["a", "b"]), None, held)
    empty = written([("a b",), ("",)], "here")
    with pytest.raises(UserError, match="data: text 2 of 2 has no token"):
        Texts(empty, of_length(bare(["a", "b", "[PAD]"]), None, empty))
    words = written([["a", "\t?"]], "here", words=True)
    lacking = bare(["a", "[PAD]"])
    lacking.model = models.BPE({"a": 0, "[PAD]": 1}, [])
    with pytest.raises(UserError, match=r"data: word '\\t\?' of text 1 has no token in this"):
        Texts(words, of_length(lacking, 4, words))


@pytest.mark.parametrize(("pairs", "least"), [(False, 3), (True, 5)])
def test_lengths_without_room(texts: Make, pairs: bool, least: int) -> None:
    rows = [("good film",) * (1 + pairs)] * 3
    held = written(rows, "here")
    with pytest.raises(UserError, match=f"data.length must be >= {least}, .* got {least - 1}"):
        opened(held, least - 1)
    assert opened(held, least).shape == (3, least)


def test_texts_behind_others(texts: Make) -> None:
    first, more = single(texts), written([("good film " * 30,), ("bad",)], "more")
    one = opened(first, 12)
    other = Texts(more, one.tokenizer)
    both = joined(one, other)
    assert both.shape == (42, 12)
    assert both.cut == one.cut + 1
    whole = Texts(Written(first.texts + more.texts), one.tokenizer)
    rows = torch.tensor([0, 40, 41, 3])
    for part, expected in zip(both.index_select(0, rows), whole.index_select(0, rows), strict=True):
        assert torch.equal(part, expected)
    assert both.digest == whole.digest != one.digest
    assert (
        one.index_select(0, rows[:1]).text.shape[1] < both.index_select(0, rows[:1]).text.shape[1]
    )
    with pytest.raises(ValueError, match="of one kind"):
        joined(one, Texts(written([["a"]], "words", words=True), one.tokenizer))


def test_the_digest_knows_texts_length_and_tokenizer(texts: Make) -> None:
    held = single(texts)
    digests = [
        opened(held).digest,
        opened(held, 12).digest,
        opened(written([("x",), *held.texts[1:]], "here")).digest,
        Texts(held, of_length(WordPiece(110).fitted(held), None, held)).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert opened(held).digest == digests[0]


def test_texts_travel_to_other_processes(texts: Make) -> None:
    found = opened(single(texts))
    again = pickle.loads(pickle.dumps(found))
    rows = torch.tensor([3, 2])
    for one, other in zip(found.index_select(0, rows), again.index_select(0, rows), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="dim must be 0"):
        found.index_select(1, rows)

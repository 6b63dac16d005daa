from __future__ import annotations

import numpy as np
import pytest

from ensemble_kd.data import written
from ensemble_kd.errors import UserError


def test_texts_pairs_and_words() -> None:
    single = written([("a b",), ("c",)], "here")
    assert (len(single), single.shape, single.pairs, single.words) == (2, (2,), False, False)
    assert list(single.strings()) == ["a b", "c"]
    assert single.encoded == (b"a b", b"c")
    pairs = written([("a b", "c"), ("", "ö")], "here")
    assert pairs.pairs
    assert list(pairs.strings()) == ["a b", "c", "", "ö"]
    assert pairs.encoded == (b"a b\x1fc", b"\x1f" + "ö".encode())
    words = written([("a", "b"), ("c",)], "here", words=True)
    assert not words.pairs
    assert list(words.strings()) == ["a b", "c"]
    assert words.encoded == (b"a\x1fb", b"c")
    assert pairs[np.array([1, 0, 1])].texts == (("", "ö"), ("a b", "c"), ("", "ö"))
    assert words[np.array([0])].words


def test_the_digest_tells_all_texts_apart() -> None:
    digests = [
        written([("a", "b"), ("c",)], "here", words=True).digest,
        written([("a",), ("b",), ("c",)], "here", words=True).digest,
        written([("a",), ("b",), ("c",)], "here").digest,
        written([("a",), ("bc",)], "here").digest,
        written([("ab",), ("c",)], "here").digest,
        written([("c",), ("ab",)], "here").digest,
    ]
    assert len(set(digests)) == len(digests)
    assert written([("ab",), ("c",)], "there").digest == digests[4]


@pytest.mark.parametrize(
    ("texts", "words", "message"),
    [
        ([], False, "expected texts, got none"),
        ([("a",), ("b\x1fc",)], False, r"control character U\+001F, got it in text 2"),
        ([("a\x00",)], False, r"U\+0000, got it in text 1"),
        ([("a", "\udc80")], False, "text 1 is no valid Unicode"),
        ([("a",), ()], True, "expected words, got an empty one or none in text 2"),
        ([("a", " ")], True, "expected words, got an empty one or none in text 1"),
    ],
)
def test_texts_that_cannot_be_read(texts: list[tuple[str, ...]], words: bool, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        written(texts, "the file", words)
    assert str(raised.value).startswith("the file: ")

"""Texts as the inputs of samples: tokens of one length, and the text itself."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.data.tokenizing import PADS, special
from ensemble_kd.data.written import Written
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST = 128
"""Tokens of a text at most, where nobody says how many."""

AT_ONCE = 4096
"""Texts that are encoded together: what the library returns takes more memory than what is kept."""

Ids = npt.NDArray[np.int32]


class Texts:
    """Texts of one length in tokens, as ``Tokens`` when rows of them are selected.

    Args:
        texts: as they were written.
        tokenizer: pads and truncates to ``length``; see ``of_length``.

    Raises:
        UserError: a text has no token at all, or a word with a class of its own has none.
    """

    dtype = torch.int64

    def __init__(self, texts: Written, tokenizer: Tokenizer) -> None:
        self.written = texts
        self.tokenizer = tokenizer
        length = int((tokenizer.truncation or {})["max_length"])
        self.shape = (len(texts), length)
        ids = np.empty(self.shape, np.int32)
        heads = np.empty(self.shape if texts.words else (0, length), np.int32)
        kinds = np.empty(self.shape if texts.pairs else (0, length), np.uint8)
        lengths = np.empty(len(texts), np.int64)
        self.cut = 0
        start = 0
        for encodings in _encoded(texts, tokenizer):
            own = slice(start, start + len(encodings))
            ids[own] = [each.ids for each in encodings]
            lengths[own] = [sum(each.attention_mask) for each in encodings]
            if texts.words:
                heads[own] = [_heads(each.word_ids) for each in encodings]
            if texts.pairs:
                kinds[own] = [each.type_ids for each in encodings]
            self.cut += sum(bool(each.overflowing) for each in encodings)
            start += len(encodings)
        if not lengths.all():
            row = int(lengths.argmin()) + 1
            raise UserError(f"data: text {row} of {len(texts)} has no token")
        self._ids, self._lengths = torch.from_numpy(ids), torch.from_numpy(lengths)
        self._heads, self._kinds = torch.from_numpy(heads), torch.from_numpy(kinds)

    @property
    def places(self) -> Tensor | None:
        """(n, l) bool, the first token of each word; None of texts that are not in words."""
        return self._heads >= 0 if self.written.words else None

    def targets(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The class of each token: that of the word which it begins.

        Args:
            labels: (n, w) of each word, ``UNLABELLED`` where it is not known or there is no word.

        Returns:
            (n, l), ``UNLABELLED`` at all other tokens.
        """
        heads = self._heads.long().numpy()
        found = np.take_along_axis(labels, heads.clip(min=0), axis=1)
        return np.where(heads >= 0, found, UNLABELLED)

    def index_select(self, dim: int, rows: Tensor) -> Tokens:
        """Some texts, like ``torch.Tensor.index_select``.

        Args:
            dim: 0.
            rows: (b,) int64.
        """
        if dim != 0:
            raise ValueError(f"dim must be 0, got {dim}")
        ids = self._ids.index_select(0, rows).long()
        mask = torch.arange(self.shape[1]) < self._lengths.index_select(0, rows)[:, None]
        if self.written.pairs:
            kinds = self._kinds.index_select(0, rows).long()
        else:
            kinds = torch.zeros_like(ids)
        return Tokens(ids, mask, kinds, self._text(rows))

    def _text(self, rows: Tensor) -> Tensor:
        """(b, n) uint8, n being the bytes of the longest of all texts."""
        text = np.zeros((len(rows), self._width), np.uint8)
        for place, row in enumerate(rows.tolist()):
            own = self.written.encoded[row]
            text[place, : len(own)] = np.frombuffer(own, np.uint8)
        return torch.from_numpy(text)

    @cached_property
    def _width(self) -> int:
        return max(1, *map(len, self.written.encoded))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides the tokens, in hexadecimal: the texts and the tokenizer."""
        said = hashlib.sha256(self.written.digest.encode())
        said.update(self.tokenizer.to_str().encode())
        said.update(self._ids.numpy().data)
        return said.hexdigest()


def of_length(tokenizer: Tokenizer, length: int | None, texts: Written) -> Tokenizer:
    """Have a tokenizer make texts of one length, cut or padded behind.

    Args:
        tokenizer: is changed.
        length: in tokens, special ones included; None for that of the longest text, or ``LONGEST``.
        texts: those of the training split.

    Raises:
        UserError: it has no token for padding, or the length has no room for any token.
    """
    if length is None:
        encoded = (each for some in _encoded(texts, tokenizer) for each in some)
        length = min(LONGEST, max(len(each.ids) for each in encoded))
    least = tokenizer.num_special_tokens_to_add(texts.pairs) + 1 + texts.pairs
    if length < least:
        raise UserError(f"data.length must be >= {least}, special tokens included, got {length}")
    pad = special(tokenizer, PADS)
    if pad is None:
        raise UserError(
            f"data.tokenizer: expected a token for padding, one of {', '.join(PADS)}, got none"
        )
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad[0], pad_token=pad[1], length=length)
    return tokenizer


def joined(first: Texts, second: Texts) -> Texts:
    """Texts behind others of the same tokenizer."""
    if first.written.words != second.written.words or first.written.pairs != second.written.pairs:
        raise ValueError("texts must be of one kind")
    both = copy.copy(first)
    both.written = Written(first.written.texts + second.written.texts, first.written.words)
    both.shape = (len(both.written), first.shape[1])
    both.cut = first.cut + second.cut
    for name in ("_ids", "_lengths", "_heads", "_kinds"):
        setattr(both, name, torch.cat([getattr(first, name), getattr(second, name)]))
    for name in ("digest", "_width"):
        vars(both).pop(name, None)  # of the first alone
    return both


def _encoded(texts: Written, tokenizer: Tokenizer) -> Iterator[Sequence[Any]]:
    """What the library says of the texts, in order, in pieces."""
    for start in range(0, len(texts), AT_ONCE):
        piece = texts.texts[start : start + AT_ONCE]
        if texts.words:
            encodings = tokenizer.encode_batch([list(parts) for parts in piece], True)
            yield [
                _whole(parts, each, tokenizer, start + number)
                for number, (parts, each) in enumerate(zip(piece, encodings, strict=True), 1)
            ]
        else:
            given: list[Any] = [parts if texts.pairs else parts[0] for parts in piece]
            yield tokenizer.encode_batch(given)


def _whole(words: tuple[str, ...], encoding: Any, tokenizer: Tokenizer, number: int) -> Any:
    """The encoding of a text in words of which every one has a token.

    Some words are nothing but characters that a tokenizer passes over; they are unknown words.
    """
    seen = {word for word in encoding.word_ids if word is not None}
    last = max(seen, default=-1) if encoding.overflowing else len(words) - 1
    lost = {number for number in range(last + 1) if number not in seen}
    if not lost:
        return encoding
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is None:
        word = words[min(lost)]
        raise UserError(f"data: word {word!r} of text {number} has no token in this tokenizer")
    kept = [unknown if each in lost else word for each, word in enumerate(words)]
    return tokenizer.encode(kept, is_pretokenized=True)


def _heads(word_ids: Sequence[int | None]) -> list[int]:
    """The number of the word that begins at each token, -1 where none does."""
    before = [None, *word_ids[:-1]]
    return [
        -1 if word is None or word == last else word
        for word, last in zip(word_ids, before, strict=True)
    ]

"""Texts as they were written: what a source holds before anything is made of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ensemble_kd.errors import UserError
from ensemble_kd.types import SEPARATOR

FORBIDDEN = (chr(0), chr(SEPARATOR))
"""Characters that no text may hold: what stands behind the text of a batch, and between parts."""


@dataclass(frozen=True)
class Written:
    """Texts, pairs of texts or texts in words; see ``written``, which checks them.

    Attributes:
        texts: of each text its parts: itself, the two of a pair, or all its words.
        words: whether the parts are words, as where each word has a class.
    """

    texts: tuple[tuple[str, ...], ...]
    words: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,)."""
        return (len(self.texts),)

    @property
    def pairs(self) -> bool:
        """Whether each text is a pair."""
        return not self.words and len(self.texts[0]) == 2

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Written:
        return Written(tuple(self.texts[row] for row in rows.tolist()), self.words)

    def strings(self) -> Iterator[str]:
        """All texts; both of a pair, and words with blanks between them."""
        for parts in self.texts:
            if self.words:
                yield " ".join(parts)
            else:
                yield from parts

    @cached_property
    def encoded(self) -> tuple[bytes, ...]:
        """Each text in UTF-8, its parts with ``SEPARATOR`` between them."""
        return tuple(chr(SEPARATOR).join(parts).encode() for parts in self.texts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all texts, in hexadecimal."""
        said = hashlib.sha256(repr((len(self), self.words)).encode())
        for text in self.encoded:
            said.update(len(text).to_bytes(8, "little"))
            said.update(text)
        return said.hexdigest()


def written(texts: Sequence[Sequence[str]], where: str, words: bool = False) -> Written:
    """Make sure that texts can be read.

    Args:
        texts: of each its parts: itself, the two of a pair, or all its words.
        where: what the error message calls them, such as the file's path.
        words: whether the parts are words.

    Raises:
        UserError: there are none, one of them holds a control character of ``FORBIDDEN`` or half a
            surrogate pair, or a text in words has no word or an empty one.
    """
    if not len(texts):
        raise UserError(f"{where}: expected texts, got none")
    for number, parts in enumerate(texts, 1):
        joined = "".join(parts)
        for character in FORBIDDEN:
            if character in joined:
                raise UserError(
                    f"{where}: texts must not hold the control character U+{ord(character):04X}, "
                    f"got it in text {number}"
                )
        if words and (not len(parts) or not all(part.strip() for part in parts)):
            raise UserError(f"{where}: expected words, got an empty one or none in text {number}")
        try:
            joined.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: text {number} is no valid Unicode") from error
    return Written(tuple(tuple(parts) for parts in texts), words)

"""How texts become tokens: by a vocabulary learned from the training split, or one that is there.

All need the library ``tokenizers``, which is imported when it is first used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kd.data.written import Written
from ensemble_kd.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN, FIRST, BETWEEN, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens of a vocabulary that is learned here, in the order of their numbers."""

PADS = (PAD, "<pad>", "<|pad|>", "<PAD>")
MASKS = (MASK, "<mask>", "<MASK>")
"""What vocabularies from elsewhere call them."""


class Tokenizing(ABC):
    """Where the tokenizer of a data set comes from.

    Subclasses are frozen dataclasses: their ``repr`` says all their settings.
    """

    @abstractmethod
    def fitted(self, texts: Written) -> Tokenizer:
        """A tokenizer for texts like these, without padding and without truncation.

        Args:
            texts: those of the training split.

        Raises:
            UserError: the library is not installed, or there is no such tokenizer.
        """


@dataclass(frozen=True)
class WordPiece(Tokenizing):
    """Word pieces of the training split, with BERT's normalisation, splitting and special tokens.

    Source: Devlin et al., BERT (arXiv 1810.04805); the vocabulary is learned as the library
    ``tokenizers`` does it, by merging the most frequent pairs. Deviation: all characters are
    numbered before, in the order of their code points, since the library numbers those inside words
    in another order in each process. Of more characters than a quarter of the vocabulary, only the
    most frequent are kept.

    Args:
        size: of the vocabulary at most, from 16 to 2^24, with the five special tokens.
        lower: take all letters for small ones, without accents.
        min_frequency: how often a pair must occur to be merged, >= 1.

    Raises:
        ValueError: an argument is out of range.
    """

    size: int = 8000
    lower: bool = True
    min_frequency: int = 2

    def __post_init__(self) -> None:
        _check(self.size, self.min_frequency)

    def fitted(self, texts: Written) -> Tokenizer:
        """A tokenizer with this vocabulary."""
        _library()
        from tokenizers import Tokenizer, decoders, models, trainers

        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        _split_as_bert(tokenizer, self.lower)
        counts: Counter[str] = Counter()
        for text in texts.strings():
            counts.update(tokenizer.normalizer.normalize_str(text))
        frequent = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
        letters = sorted(frequent[: self.size // 4])
        # Numbered in advance, as if they were special, all characters are where everybody has them.
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.size,
            min_frequency=self.min_frequency,
            special_tokens=[*SPECIAL, *letters, *("##" + letter for letter in letters)],
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts.strings(), trainer)
        vocabulary = tokenizer.get_vocab()
        learned = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
        learned.decoder = decoders.WordPiece()
        return _with_special(_split_as_bert(learned, self.lower))


@dataclass(frozen=True)
class WordLevel(Tokenizing):
    """The most frequent words of the training split; all others are one unknown word.

    Words are split as BERT does it, at blanks and punctuation.

    Args:
        size: of the vocabulary at most, from 16 to 2^24, with the five special tokens.
        lower: take all letters for small ones, without accents.
        min_frequency: how often a word must occur, >= 1.

    Raises:
        ValueError: an argument is out of range.
    """

    size: int = 20_000
    lower: bool = True
    min_frequency: int = 2

    def __post_init__(self) -> None:
        _check(self.size, self.min_frequency)

    def fitted(self, texts: Written) -> Tokenizer:
        """A tokenizer with this vocabulary."""
        _library()
        from tokenizers import Tokenizer, models, trainers

        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        _split_as_bert(tokenizer, self.lower)
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts.strings(), trainer)
        return _with_special(tokenizer)


@dataclass(frozen=True)
class Pretrained(Tokenizing):
    """A tokenizer that is there: of a network that was trained elsewhere, for example.

    Args:
        path: a ``tokenizer.json``, a folder that holds one, or the id of a repository on the
            Hugging Face hub, from which it is downloaded.
        revision: the commit in that repository; needed there, and for nothing else.
    """

    path: str
    revision: str | None = None

    def fitted(self, texts: Written) -> Tokenizer:
        """The tokenizer; the texts do not matter."""
        _library()
        from tokenizers import Tokenizer

        given = Path(self.path).expanduser()
        path = given / "tokenizer.json" if given.is_dir() else given
        if path.is_file():
            made = _opened(lambda: Tokenizer.from_file(str(path)), str(path.absolute()))
        elif given.is_dir() or given.is_absolute() or self.path.startswith((".", "~")):
            raise UserError(
                f"data.tokenizer.path: no file {path.absolute()}; transformers writes one beside a "
                "fast tokenizer that is saved"
            )
        elif self.revision is None:
            raise UserError(
                f"data.tokenizer.path: no file or folder {self.path!r}; to download it from the "
                "Hugging Face hub, name the commit with data.tokenizer.revision"
            )
        else:
            revision, where = self.revision, f"{self.path} at {self.revision}"
            made = _opened(lambda: Tokenizer.from_pretrained(self.path, revision), where)
        found: Tokenizer = made
        found.no_padding()
        found.no_truncation()
        return found


def as_tokenizing(said: Tokenizing | str | None) -> Tokenizing | None:
    """What was said of a tokenizer: text is the path of one that is there, or ``ID@COMMIT``."""
    if not isinstance(said, str):
        return said
    if Path(said).expanduser().exists():
        return Pretrained(said)
    path, _, revision = said.partition("@")
    return Pretrained(path, revision or None)


def special(tokenizer: Tokenizer, names: Sequence[str]) -> tuple[int, str] | None:
    """The number and the name of the first of some tokens that a tokenizer knows."""
    for name in names:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return number, name
    return None


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """How many rows an embedding of its tokens has; their numbers may leave some out."""
    return max(tokenizer.get_vocab().values()) + 1


def _check(size: int, min_frequency: int) -> None:
    if size < 16:
        raise ValueError(f"size must be >= 16, got {size}")
    if size > 2**24:
        raise ValueError(f"size must be <= {2**24}, got {size}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency must be >= 1, got {min_frequency}")


def _split_as_bert(tokenizer: Tokenizer, lower: bool) -> Tokenizer:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _with_special(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, with the first token before and the one between behind each text."""
    from tokenizers import processors

    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {BETWEEN}",
        pair=f"{FIRST} $A {BETWEEN} $B:1 {BETWEEN}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (FIRST, BETWEEN)],
    )
    return tokenizer


def _opened(load: Any, where: str) -> Any:
    try:
        return load()
    except Exception as error:  # the library raises plain exceptions
        why = " ".join(str(error).split())[:200]
        raise UserError(f"data.tokenizer.path: {where} cannot be read as a tokenizer: {why}") from (
            error
        )


def _library() -> None:
    """Make sure that the library is there."""
    try:
        import tokenizers  # noqa: F401 - only whether it can be
    except ModuleNotFoundError as missing:
        raise UserError(
            "data.tokenizer needs the package 'tokenizers': pip install ensemble-kd[text]"
        ) from missing

"""Made-up texts for the teachers to label: the real ones with words masked, exchanged, left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kd.data.source import existing
from ensemble_kd.data.synthesis import Synthesis
from ensemble_kd.data.tokenizing import MASKS, special
from ensemble_kd.data.written import Written
from ensemble_kd.errors import UserError

LONGEST = 5
"""Words of an n-gram at most."""

Lexicon = dict[str, tuple[Sequence[str], npt.NDArray[np.float64]]]
"""For each tag its words in the training texts, and how frequent each is among them, summed up."""


@dataclass(frozen=True)
class TangAugmentation(Synthesis):
    """Texts from texts, by the rules of Tang et al.

    Source: Tang et al., Distilling Task-Specific Knowledge from BERT into Simple Neural Networks
    (arXiv 1903.12136), section 3.3. For each word a number is drawn from [0, 1): below ``p_mask``
    the word is masked; from there to ``p_mask + p_pos`` it gives way to a word of the same part of
    speech, drawn by its frequency in the training texts (which may be the word itself). After that,
    with the probability ``p_ngram``, only an n-gram of the text is kept, n being drawn from 1 to 5
    and its place likewise. All of this is done ``tries`` times with each text; of pairs, the first
    text, the second and both are changed in turn. What was made before, or is a real text, is left
    out. Deviations: words are what stands between blanks; a text shorter than the n-gram is kept
    whole; a word without a tag is never exchanged.

    Args:
        tries: texts to make of each at most, >= 1; the paper's n_iter, 20, or 10 for pairs.
        p_mask: probability that a word is masked, in [0, 1].
        p_pos: probability that a word is exchanged, in [0, 1 - p_mask]; None for the paper's 0.1
            where there are tags, and for 0 where there are none.
        p_ngram: probability that only an n-gram is kept, in [0, 1].
        tags: a file of lines WORD<TAB>TAG in UTF-8, the part of speech of each word as it is
            written in the texts.
        mask: what stands for a masked word; None for the mask token of the data's tokenizer.

    Raises:
        ValueError: an argument is out of range.
    """

    tries: int = 20
    p_mask: float = 0.1
    p_pos: float | None = None
    p_ngram: float = 0.25
    # Where the file lies does not matter, and what it says shows in the texts that are made.
    tags: str | Path | None = field(default=None, repr=False)
    mask: str | None = None

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries must be >= 1, got {self.tries}")
        if self.p_pos is None:
            object.__setattr__(self, "p_pos", 0.0 if self.tags is None else 0.1)
        for name in ("p_mask", "p_pos", "p_ngram"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.p_mask + self._exchanged > 1:
            raise ValueError(f"p_mask + p_pos must be at most 1, got {self.p_mask} + {self.p_pos}")
        if self._exchanged > 0 and self.tags is None:
            raise ValueError(
                "p_pos > 0 needs tags, a file of lines WORD<TAB>TAG; without one, set p_pos=0"
            )

    @property
    def _exchanged(self) -> float:
        return self.p_pos or 0.0

    def fitted(self, tokenizer: Any) -> TangAugmentation:
        """With the mask token of a tokenizer, where none was given."""
        found = special(tokenizer, MASKS)
        return self if self.mask is not None or not found else replace(self, mask=found[1])

    def __call__(self, inputs: Written, seed: int) -> Written:
        """Make texts.

        Args:
            inputs: the training texts, not in words.
            seed: decides all draws.

        Raises:
            UserError: the inputs are no texts, words have classes, the file cannot be read, there
                is no mask token, or nothing new was made.
        """
        if not isinstance(inputs, Written):
            raise UserError("data.synthesise: TangAugmentation needs texts, got other data")
        if inputs.words:
            raise UserError(
                "data.synthesise: TangAugmentation needs texts with a class each, got tagged words"
            )
        # A dict, which keeps the order: no text is made twice, whatever blanks it has.
        seen = {_plain(text): text for text in inputs.texts}
        real = len(seen)
        for text in self.every(inputs, seed):
            seen.setdefault(_plain(text), text)
        made = tuple(seen.values())[real:]
        if not made:
            raise UserError(
                "data.synthesise: TangAugmentation made no new text; raise its probabilities"
            )
        return Written(made)

    def every(self, inputs: Written, seed: int) -> Iterator[tuple[str, ...]]:
        """All texts that are made, also those that were there before."""
        if self.p_mask > 0 and self.mask is None:
            raise UserError(
                "data.synthesise: TangAugmentation needs a tokenizer with a token for masks, "
                f"{', '.join(MASKS)}; set data.synthesise.mask to what stands for a masked word"
            )
        generator = np.random.default_rng(seed)
        tags = {} if self.tags is None else read_tags(Path(self.tags).expanduser())
        words = [[part.split() for part in text] for text in inputs.texts]
        lexicon = _lexicon(words, tags)
        for number in range(self.tries):
            for text, parts in zip(inputs.texts, words, strict=True):
                # Of pairs the first, the second, both; of other texts, there is nothing to choose.
                changed = (0, 1) if number % 3 == 2 else (number % 3,)
                yield tuple(
                    self._changed(parts[part], tags, lexicon, generator)
                    if len(parts) == 1 or part in changed
                    else text[part]
                    for part in range(len(parts))
                )

    def _changed(
        self,
        words: Sequence[str],
        tags: dict[str, str],
        lexicon: Lexicon,
        generator: np.random.Generator,
    ) -> str:
        made = list(words)
        drawn = generator.random(len(words))
        for place in np.flatnonzero(drawn < self.p_mask + self._exchanged).tolist():
            if drawn[place] < self.p_mask:
                made[place] = str(self.mask)
            elif words[place] in tags:
                others, shares = lexicon[tags[words[place]]]
                made[place] = others[int(shares.searchsorted(generator.random(), "right"))]
        if words and generator.random() < self.p_ngram:
            size = min(int(generator.integers(1, LONGEST + 1)), len(words))
            start = int(generator.integers(0, len(words) - size + 1))
            made = made[start : start + size]
        return " ".join(made)


def _plain(text: Sequence[str]) -> tuple[str, ...]:
    """A text with one blank between words, as those are that are made."""
    return tuple(" ".join(part.split()) for part in text)


def read_tags(path: Path) -> dict[str, str]:
    """The tag of each word in a file of lines WORD<TAB>TAG.

    Raises:
        UserError: it is missing, empty, not UTF-8, or a line is something else.
    """
    existing(path, "set data.synthesise.tags to a file of lines WORD<TAB>TAG")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.absolute()} is not UTF-8") from error
    tags: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word, _, tag = (part.strip() for part in line.partition("\t"))
        if not word or not tag or "\t" in tag:
            raise UserError(
                f"{path.absolute()}: expected WORD<TAB>TAG in line {number}, got {line[:60]!r}"
            )
        if tags.setdefault(word, tag) != tag:
            raise UserError(
                f"{path.absolute()}: expected one tag for each word, got {tags[word]} and {tag} "
                f"for {word!r}"
            )
    return tags


def _lexicon(texts: Sequence[Sequence[Sequence[str]]], tags: dict[str, str]) -> Lexicon:
    counts = Counter(word for parts in texts for part in parts for word in part)
    of_tag: dict[str, list[str]] = defaultdict(list)
    for word in sorted(counts):
        if word in tags:
            of_tag[tags[word]].append(word)
    lexicon: Lexicon = {}
    for tag, words in of_tag.items():
        total = np.cumsum([counts[word] for word in words])
        lexicon[tag] = words, total / total[-1]
    return lexicon

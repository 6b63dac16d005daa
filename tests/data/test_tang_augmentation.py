"""Made-up texts: each rule by its distribution, and all rules together against naive loops."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ensemble_kd.data import InMemory, TangAugmentation, WordPiece, Written, written
from ensemble_kd.data.tang_augmentation import read_tags
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED

Make = Callable[..., Any]
MASK = "[MASK]"
TAGS = "film\tnoun\nplot\tnoun\nbook\tnoun\ngood\tword\nbad\tword\nnever\trare\nodd\tword\n"


@pytest.fixture
def tags() -> Path:
    path = Path("tags.tsv").absolute()
    path.write_text(TAGS)
    return path


def texts(*said: str) -> Written:
    return written([(text,) for text in said], "here")


def frequencies(made: Iterable[tuple[str, ...]]) -> dict[str, float]:
    counts = Counter(text for (text,) in made)
    total = sum(counts.values())
    return {text: count / total for text, count in counts.items()}


def check_close(found: dict[str, float], expected: dict[str, float], draws: int) -> None:
    """Every frequency within five standard deviations, and nothing that is not expected."""
    assert set(found) <= set(expected)
    for text, chance in expected.items():
        spread = 5 * (chance * max(1 - chance, 0.0) / draws) ** 0.5
        assert found.get(text, 0.0) == pytest.approx(chance, abs=spread + 1e-12), text


def test_masking() -> None:
    rule = TangAugmentation(4000, p_mask=0.3, p_pos=0.0, p_ngram=0.0, mask=MASK)
    expected = {
        f"{a} {b}": (0.3 if a == "[MASK]" else 0.7) * (0.3 if b == "[MASK]" else 0.7)
        for a, b in itertools.product(("good", "[MASK]"), ("film", "[MASK]"))
    }
    check_close(frequencies(rule.every(texts("good film"), seed=1)), expected, 4000)


def test_words_of_the_same_tag_by_their_frequency(tags: Path) -> None:
    """film 3, plot 1, book 0 times in the training texts; the last is never drawn."""
    held = texts("film", "film plot other", "film")
    rule = TangAugmentation(4000, p_mask=0.0, p_pos=0.4, p_ngram=0.0, tags=tags)
    made = list(rule.every(held, seed=2))
    shares = {"film": 3 / 4, "plot": 1 / 4}
    first = {word: 0.4 * share + 0.6 * (word == "film") for word, share in shares.items()}
    check_close(frequencies(made[0::3]), first, 4000)
    pairs = {
        f"{a} {b} other": (0.4 * shares[a] + 0.6 * (a == "film"))
        * (0.4 * shares[b] + 0.6 * (b == "plot"))
        for a, b in itertools.product(shares, shares)
    }
    check_close(frequencies(made[1::3]), pairs, 4000)


@pytest.mark.parametrize("words", [1, 3, 5, 8])
def test_an_ngram_of_any_length_and_place(words: int) -> None:
    said = [f"w{number}" for number in range(words)]
    expected: Counter[str] = Counter({" ".join(said): 0.7})
    for size in range(1, 6):
        size = min(size, words)
        for start in range(words - size + 1):
            kept = " ".join(said[start : start + size])
            expected[kept] += 0.3 / 5 / (words - size + 1)  # type: ignore[assignment]
    rule = TangAugmentation(5000, p_mask=0.0, p_pos=0.0, p_ngram=0.3)
    found = frequencies(rule.every(texts(" ".join(said)), seed=3))
    check_close(found, dict(expected), 5000)


def reference_changes(text: str, tags: dict[str, str], counts: Counter[str]) -> dict[str, float]:
    """The chance of each outcome: every word's fate, then every n-gram, one by one."""
    p_mask, p_pos, p_ngram = 0.2, 0.3, 0.4
    fates: list[dict[str, float]] = []
    for word in text.split():
        fate = Counter({"[MASK]": p_mask, word: 1 - p_mask - p_pos})
        others = {other: n for other, n in counts.items() if tags.get(other) == tags.get(word)}
        if word not in tags:
            others = {word: 1}
        for other, number in others.items():
            fate[other] += p_pos * number / sum(others.values())  # type: ignore[assignment]
        fates.append(dict(fate))
    found: Counter[str] = Counter()
    for outcome in itertools.product(*(fate.items() for fate in fates)):
        words = [word for word, _ in outcome]
        chance = float(np.prod([p for _, p in outcome]))
        found[" ".join(words)] += chance * (1 - p_ngram)  # type: ignore[assignment]
        for size in (min(n, len(words)) for n in range(1, 6)):
            places = len(words) - size + 1
            for start in range(places):
                kept = " ".join(words[start : start + size])
                found[kept] += chance * p_ngram / 5 / places  # type: ignore[assignment]
    return dict(found)


def test_all_rules_together(tags: Path) -> None:
    said = ("good film x", "bad film plot", "good good")
    rule = TangAugmentation(12_000, 0.2, 0.3, 0.4, tags=tags, mask=MASK)
    made = list(rule.every(texts(*said), seed=4))
    counts = Counter(word for text in said for word in text.split())
    for number, text in enumerate(said):
        expected = reference_changes(text, read_tags(tags), counts)
        assert sum(expected.values()) == pytest.approx(1.0)
        check_close(frequencies(made[number::3]), expected, 12_000)


def test_pairs_change_in_turn() -> None:
    held = written([("a b", "c d")], "here")
    made = list(
        TangAugmentation(6, p_mask=1.0, p_pos=0.0, p_ngram=0.0, mask=MASK).every(held, seed=0)
    )
    gone = "[MASK] [MASK]"
    assert made == [(gone, "c d"), ("a b", gone), (gone, gone)] * 2


def test_what_is_there_already_is_left_out(tags: Path) -> None:
    held = texts("good film", "bad film", "good film")
    rule = TangAugmentation(200, tags=tags, mask=MASK)
    made = rule(held, seed=5)
    assert len(made.texts) == len(set(made.texts)) > 5
    assert not set(made.texts) & set(held.texts)
    assert not made.words
    every = set(rule.every(held, seed=5))
    assert set(made.texts) == every - set(held.texts)


def test_the_seed_decides(tags: Path) -> None:
    held = texts("good film plot", "bad film book")
    rule = TangAugmentation(tags=tags, mask=MASK)
    assert rule(held, 1) == rule(held, 1)
    assert rule(held, 1) != rule(held, 2)
    assert len(list(rule.every(held, 1))) == 2 * 20


def test_words_are_exchanged_where_there_are_tags(tags: Path) -> None:
    assert TangAugmentation() == TangAugmentation(p_pos=0.0)
    assert TangAugmentation(tags=tags).p_pos == 0.1


def test_another_mask_and_texts_without_words() -> None:
    rule = TangAugmentation(3, p_mask=1.0, p_pos=0.0, p_ngram=1.0, mask="<mask>")
    made = rule(texts("a", " "), 0)
    assert made.texts == (("<mask>",),)


def test_real_texts_are_left_out_whatever_blanks_they_have() -> None:
    nothing = TangAugmentation(9, p_mask=0.0, p_pos=0.0, p_ngram=0.0)
    for held in (texts("a  b "), written([("a  b", " c")], "here")):
        with pytest.raises(UserError, match="made no new text"):
            nothing(held, 0)


def test_the_mask_is_that_of_the_tokenizer() -> None:
    def knowing(*tokens: str) -> Any:
        vocabulary = {token: number for number, token in enumerate(("[UNK]", *tokens))}
        return Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))

    rule = TangAugmentation(3, p_mask=1.0, p_ngram=0.0)
    assert rule.fitted(knowing("a", "<mask>"))(texts("a b"), 0).texts == (("<mask> <mask>",),)
    assert TangAugmentation(mask="_").fitted(knowing("<mask>")).mask == "_"
    with pytest.raises(UserError, match=r"needs a tokenizer with a token for masks, \[MASK\], <ma"):
        rule.fitted(knowing("a"))(texts("a b"), 0)
    assert len(TangAugmentation(40, p_mask=0.0, p_ngram=1.0)(texts("a b"), 0).texts) == 2


def test_data_tells_its_tokenizer(said: Make) -> None:
    Path("words").mkdir()
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "<mask>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["<pad>", "<mask>"])
    words.save("words/tokenizer.json")
    rule = TangAugmentation(1, p_mask=1.0, p_ngram=0.0)
    data = InMemory(said(60), 8, tokenizer="words", synthesise=rule, drop_last=False)
    made = [
        batch.inputs.ids[row]
        for batch in data.train_dataloader()
        for row, number in enumerate(batch.index.tolist())
        if number >= 60
    ]
    assert made
    assert all(set(ids.tolist()) <= {0, 2} for ids in made)


def opened(source: Any, **settings: Any) -> InMemory:
    kind = WordPiece(120, min_frequency=1)
    return InMemory(source, 8, tokenizer=kind, drop_last=False, **settings)


@pytest.mark.parametrize("labelled", [None, 12])
def test_made_texts_join_training_without_labels(said: Make, labelled: int | None) -> None:
    source = said(60, test=9)
    rule = TangAugmentation(4, p_pos=0.0)
    plain, data = (opened(source, labelled=labelled, synthesise=each) for each in (None, rule))
    assert data.sizes() == plain.sizes()
    real = {text for (text,) in source.samples("train").inputs.texts}
    seen: dict[int, str] = {}
    for batch in data.train_dataloader():
        assert batch.mask is not None
        for row, number in enumerate(batch.index.tolist()):
            seen[number] = bytes(batch.inputs.text[row].tolist()).rstrip(b"\0").decode()
            if number >= 60:
                assert batch.target[row] == UNLABELLED
                assert not batch.mask[row]
    made = {number: text for number, text in seen.items() if number >= 60}
    assert len(made) > 60
    assert sorted(made) == list(range(60, 60 + len(made)))
    assert not set(made.values()) & {seen[number] for number in seen if number < 60}
    assert set(seen.values()) - set(made.values()) <= real
    first = next(iter(data.test_dataloader())).index
    assert int(first[0]) == 60 + len(made)
    assert data.digest != plain.digest
    assert data.inputs == plain.inputs


def test_the_digest_knows_what_the_tags_say(said: Make, tags: Path) -> None:
    def digest(**settings: Any) -> str:
        return opened(said(60), synthesise=TangAugmentation(3, **settings)).digest

    once = digest(tags=tags)
    tags.rename("elsewhere.tsv")
    assert digest(tags="elsewhere.tsv") == once
    Path("elsewhere.tsv").write_text("good\tword\nplot\tword\n")
    assert digest(tags="elsewhere.tsv") != once


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tries": 0}, "tries must be >= 1, got 0"),
        ({"p_mask": 1.5}, r"p_mask must be in \[0, 1\], got 1.5"),
        ({"p_ngram": -0.1}, r"p_ngram must be in \[0, 1\]"),
        ({"p_mask": 0.6, "p_pos": 0.6}, "p_mask [+] p_pos must be at most 1"),
        ({"p_pos": 0.1}, "p_pos > 0 needs tags, a file of lines WORD<TAB>TAG; without one, set p"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TangAugmentation(**arguments)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((4, 3), np.float32), "needs texts, got other data"),
        (written([["a", "b"]], "here", words=True), "with a class each, got tagged words"),
        (texts("a", "[MASK]"), "made no new text"),
    ],
)
def test_what_cannot_be_augmented(inputs: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TangAugmentation(3, p_mask=1.0, p_pos=0.0, mask=MASK)(inputs, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\n", r"expected WORD<TAB>TAG in line 1, got 'a'"),
        ("a\tx\tb\n", "in line 1, got"),
        ("a\tx\n\n\ty\n", "in line 3, got"),
        ("a\tx\na\ty\n", "expected one tag for each word, got x and y for 'a'"),
        ("", "tags.tsv is empty; set data.synthesise.tags"),
        (b"\xe4\tx\n", "tags.tsv is not UTF-8"),
    ],
)
def test_tags_that_cannot_be_read(content: str | bytes, message: str) -> None:
    path = Path("tags.tsv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_tags(path)
    with pytest.raises(UserError, match="no file"):
        read_tags(Path("nowhere.tsv"))

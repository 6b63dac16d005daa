"""Tokens that are hidden or exchanged at each visit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from ensemble_kd.data import Augmentation, Chain, InMemory, MaskTokens, ReplaceTokens, WordPiece
from ensemble_kd.errors import UserError
from ensemble_kd.types import Tokens

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = 40
MASK = 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    names = [*SPECIAL, *(f"w{number}" for number in range(WORDS))]
    made = Tokenizer(models.WordLevel({name: k for k, name in enumerate(names)}, "[UNK]"))
    made.add_special_tokens(SPECIAL)
    return made


def texts(count: int, length: int = 20) -> Tokens:
    generator = torch.Generator().manual_seed(count)
    ids = torch.randint(len(SPECIAL), len(SPECIAL) + WORDS, (count, length), generator=generator)
    ends = torch.randint(3, length + 1, (count, 1), generator=generator)
    places = torch.arange(length)
    ids[:, 0] = 2
    ids = ids.where(places != ends - 1, 3).where(places < ends, 0)
    mask = places < ends
    return Tokens(ids, mask, torch.zeros_like(ids), torch.ones(count, 3, dtype=torch.uint8))


def kinds(p: float) -> list[Augmentation]:
    return [MaskTokens(p), ReplaceTokens(p)]


@pytest.mark.parametrize("number", [0, 1])
def test_ordinary_tokens_change_as_often_as_said(tokenizer: Tokenizer, number: int) -> None:
    held = texts(2000)
    found = kinds(0.3)[number].fitted(tokenizer)(held, torch.arange(2000), 0, 7)
    ordinary = held.mask & (held.ids >= len(SPECIAL))
    assert torch.equal(found.ids[~ordinary], held.ids[~ordinary])
    changed = (found.ids != held.ids)[ordinary].float().mean()
    # Of the exchanged ones, one in WORDS becomes itself.
    expected = 0.3 if number == 0 else 0.3 * (1 - 1 / WORDS)
    assert float(changed) == pytest.approx(expected, abs=5 * (0.21 / int(ordinary.sum())) ** 0.5)
    assert torch.equal(found.mask, held.mask)
    assert torch.equal(found.text, held.text)
    different = found.ids[ordinary & (found.ids != held.ids)]
    if number == 0:
        assert set(different.tolist()) == {MASK}
    else:
        counts = torch.bincount(different, minlength=len(SPECIAL) + WORDS)[len(SPECIAL) :]
        assert float((counts / counts.sum() - 1 / WORDS).abs().max()) < 0.01


@pytest.mark.parametrize("number", [0, 1])
def test_a_sample_looks_the_same_in_any_batch(tokenizer: Tokenizer, number: int) -> None:
    rule, held = kinds(0.3)[number].fitted(tokenizer), texts(30)
    index, visits = torch.arange(30) * 7, torch.arange(30) % 4
    whole = rule(held, index, visits, 3).ids
    for rows in (torch.tensor([4]), torch.tensor([29, 4, 11])):
        part = Tokens(*(each[rows] for each in held))
        assert torch.equal(rule(part, index[rows], visits[rows], 3).ids, whole[rows])
    others: list[tuple[Tensor, Any, int]] = [
        (index + 1, visits, 3),
        (index, visits + 1, 3),
        (index, visits, 4),
    ]
    for other in others:
        assert not torch.equal(rule(held, *other).ids, whole)


def test_all_or_nothing(tokenizer: Tokenizer) -> None:
    held = texts(5)
    ordinary = held.mask & (held.ids >= len(SPECIAL))
    index = torch.arange(5)
    for rule in kinds(0.0):
        assert torch.equal(rule.fitted(tokenizer)(held, index, 0, 0).ids, held.ids)
    hidden = MaskTokens(1.0).fitted(tokenizer)(held, index, 0, 0)
    assert torch.equal(hidden.ids == MASK, ordinary)


def test_they_are_told_by_their_settings(tokenizer: Tokenizer) -> None:
    assert repr(MaskTokens(0.1)) == repr(MaskTokens(0.1).fitted(tokenizer)) == "MaskTokens(p=0.1)"
    assert repr(Chain([ReplaceTokens(0.2)])) == "Chain(steps=(ReplaceTokens(p=0.2),))"


Make = Callable[..., Any]


def opened(source: Any, **settings: Any) -> InMemory:
    return InMemory(source, **{"batch_size": 8, "tokenizer": WordPiece(120), **settings})


def test_in_training_only_and_anew_at_each_visit(said: Make) -> None:
    plain, varied = opened(said(60)), opened(said(60), augment=[MaskTokens(0.5)], views=2)
    assert plain.digest != varied.digest
    one, other = (next(iter(data.train_dataloader())) for data in (plain, varied))
    mask = varied.tokenizer.token_to_id("[MASK]")  # type: ignore[union-attr]
    for seen in (other.inputs, *other.views):
        changed = seen.ids != one.inputs.ids
        assert 0.3 < float(changed[one.inputs.mask].float().mean()) < 0.7
        assert (seen.ids[changed] == mask).all()
    assert not torch.equal(other.inputs.ids, other.views[0].ids)
    val = [next(iter(data.val_dataloader())).inputs.ids for data in (plain, varied)]
    assert torch.equal(*val)


def test_views_that_recur(said: Make) -> None:
    data = opened(said(60), augment=MaskTokens(0.5), cycle=2)
    recurring = data.recurring()
    assert recurring is not None
    assert recurring.views == 2
    batch = next(iter(data.train_dataloader()))
    assert batch.view is not None
    again = recurring.inputs(batch.index, int(batch.view[0]))
    assert torch.equal(again.ids, batch.inputs.ids)


def test_words_keep_their_places(tagged: Make) -> None:
    one, other = (
        next(iter(opened(tagged(60), augment=augment).train_dataloader()))
        for augment in (None, ReplaceTokens(0.5))
    )
    assert one.places is not None
    assert other.places is not None
    assert torch.equal(one.places, other.places)
    assert torch.equal(one.target, other.target)
    assert not torch.equal(one.inputs.ids, other.inputs.ids)


def test_what_does_not_suit(said: Make, held: Make) -> None:
    for rule in kinds(0.1):
        name = type(rule).__name__
        with pytest.raises(UserError, match=f"augment: {name} needs texts, got other samples"):
            InMemory(held([20, 20]), augment=rule).setup()
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 1.5"):
            type(rule)(1.5)  # type: ignore[call-arg]
    bare = Tokenizer(models.WordLevel({"a": 0, "last": len(SPECIAL) + WORDS}, "a"))
    with pytest.raises(UserError, match="needs a tokenizer with a token for masks"):
        MaskTokens(0.5).fitted(bare)(texts(2), torch.arange(2), 0, 0)

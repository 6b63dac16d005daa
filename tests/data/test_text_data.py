"""Texts as a datamodule: fixed length, places of words, labels, numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils._pytree import tree_flatten

from ensemble_kd.data import Augmentation, Flip, InMemory, Noise, Parts, WordPiece
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Batch, Tokens

Make = Callable[..., Any]
KIND = WordPiece(120, min_frequency=1)


def opened(source: Any, **settings: Any) -> InMemory:
    return InMemory(source, **{"batch_size": 8, "tokenizer": KIND, **settings})


def text(batch: Batch, row: int) -> str:
    return bytes(batch.inputs.text[row].tolist()).rstrip(b"\0").decode()


def test_what_it_tells(said: Make, tmp_path: Path) -> None:
    data = opened(said(60))
    tokenizer: Any = data.tokenizer
    assert data.inputs == (tokenizer.truncation["max_length"],)
    assert data.vocabulary == tokenizer.get_vocab_size()
    assert data.mean is data.std is None
    assert not data.per_token
    assert data.names == ("low", "mid", "high")
    assert data.sizes() == {"train": 42, "labelled": 42, "val": 9, "test": 9}
    data.accompany(tmp_path)
    delivered = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    batch = next(iter(data.val_dataloader()))
    assert delivered.encode(text(batch, 0)).ids == batch.inputs.ids[0].tolist()


def test_every_batch_holds_its_texts_at_one_length(said: Make) -> None:
    source = said(60, val=7, test=20)
    data = opened(source, drop_last=False, length=9)
    every: list[Any] = [
        each for part in ("train", "val", "test") for each in source.samples(part).inputs.texts
    ]
    seen = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            assert isinstance(batch.inputs, Tokens)
            assert batch.inputs.ids.shape[1] == 9
            for row, number in enumerate(batch.index.tolist()):
                assert (text(batch, row),) == every[number]
                seen.append(number)
    assert sorted(seen) == list(range(87))


def test_pairs(said: Make) -> None:
    data = opened(said(40, pairs=True))
    batch = next(iter(data.train_dataloader()))
    assert [len(text(batch, row).split("\x1f")) for row in range(8)] == [2] * 8
    assert (batch.inputs.kinds.sum(dim=1) > 0).all()
    assert not (batch.inputs.kinds.bool() & ~batch.inputs.mask).any()


def test_the_vocabulary_is_learned_from_the_training_split_alone(said: Make) -> None:
    data = opened(said(60, test=20))
    learned = {text(batch, row) for batch in data.train_dataloader() for row in range(8)}
    held_out = {
        text(batch, row)
        for loader in (data.val_dataloader(), data.test_dataloader())
        for batch in loader
        for row in range(len(batch.index))
    }
    heard: list[str] = []

    class Listening(WordPiece):
        def fitted(self, texts: Any) -> Tokenizer:
            heard.extend(texts.strings())
            return super().fitted(texts)

    opened(said(60, test=20), tokenizer=Listening(120)).setup()
    assert learned <= set(heard)
    assert not held_out & set(heard)


def test_texts_that_are_cut_are_told_once(said: Make, capsys: pytest.CaptureFixture[str]) -> None:
    opened(said(60), length=40).setup()
    assert capsys.readouterr().err == ""
    data = opened(said(60), length=5)
    data.setup()
    assert data.digest
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("data: ")
    assert lines[0].endswith(" of 60 texts are longer than data.length=5 tokens and are cut")


def test_words_have_classes_at_their_places(tagged: Make) -> None:
    source = tagged(60)
    data = opened(source, drop_last=False)
    assert data.per_token
    assert (data.classes, data.names) == (4, ("O", "B-x", "I-x", "B-y"))
    words = [list(each) for each in source.samples("train").inputs.texts]
    for batch in itertools.chain(data.train_dataloader(), data.test_dataloader()):
        assert batch.places is not None
        assert torch.equal(batch.places, batch.mask)  # type: ignore[arg-type]
        assert (batch.target[~batch.places] == UNLABELLED).all()
        for row, number in enumerate(batch.index.tolist()):
            own = words[number]
            assert text(batch, row).split("\x1f") == own
            assert batch.target[row][batch.places[row]].tolist() == [len(word) % 4 for word in own]


def test_so_many_texts_in_words_keep_their_labels(tagged: Make) -> None:
    whole, data = opened(tagged(60)), opened(tagged(60), labelled=10, drop_last=False)
    assert data.sizes() == {**whole.sizes(), "labelled": 10}
    known = 0
    for batch in data.train_dataloader():
        assert batch.mask is not None
        assert batch.places is not None
        for mask, places, target in zip(batch.mask, batch.places, batch.target, strict=True):
            assert torch.equal(mask, places) or not mask.any()
            assert (target[~mask] == UNLABELLED).all()
            known += int(mask.any())
    assert known == 10
    data.labelled_only = True
    batches = list(data.train_dataloader())
    assert all(torch.equal(batch.mask, batch.places) for batch in batches)  # type: ignore[arg-type]
    assert len({number for batch in batches for number in batch.index.tolist()}) == 10
    again = opened(tagged(60), labelled=10, drop_last=False)
    assert again.digest == data.digest != whole.digest


@pytest.mark.parametrize("source", ["said", "tagged"])
def test_what_recurs_is_what_batches_hold(source: str, request: pytest.FixtureRequest) -> None:
    data = opened(request.getfixturevalue(source)(60, val=9, test=9), drop_last=False)
    loaders = {"train": data.train_dataloader, "val": data.val_dataloader}
    for split, loader in {**loaders, "test": data.test_dataloader}.items():
        recurring = data.recurring(split)  # type: ignore[arg-type]
        assert recurring is not None
        served = {
            number: (batch, row)
            for batch in loader()
            for row, number in enumerate(batch.index.tolist())
        }
        assert recurring.index.tolist() == sorted(served)
        for number, (batch, row) in served.items():
            again = recurring.inputs(torch.tensor([number]), 0)
            for part, other in zip(again, batch.inputs, strict=True):
                assert torch.equal(part[0], other[row])
        pieces = list(recurring.chunks(8))
        for (_, start, stop), batch in zip(pieces, recurring.batches(pieces, 8), strict=True):
            assert batch.index[: stop - start].tolist() == recurring.index[start:stop].tolist()


def test_batches_share_no_memory_with_the_data(said: Make) -> None:
    data = opened(said(60))

    def first() -> Batch:
        return next(iter(data.val_dataloader()))

    before = [part.clone() for part in tree_flatten(first())[0] if isinstance(part, Tensor)]
    for part in tree_flatten(first())[0]:
        if isinstance(part, Tensor):
            part.zero_()
    after = [part for part in tree_flatten(first())[0] if isinstance(part, Tensor)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_digest_knows_tokenizer_and_length(said: Make, tagged: Make) -> None:
    digests = [
        opened(said(60)).digest,
        opened(said(60), length=9).digest,
        opened(said(60), tokenizer=WordPiece(100, min_frequency=1)).digest,
        opened(said(61)).digest,
        opened(said(60, pairs=True)).digest,
        opened(tagged(60)).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert opened(said(60)).digest == digests[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": None}, "data.tokenizer: expected one, since the data holds texts"),
        ({"length": 2}, "data.length must be >= 3, special tokens included, got 2"),
        ({"augment": Flip()}, "augment: Flip needs images, got texts"),
        ({"augment": Noise(0.1)}, "augment: Noise needs numbers, got texts"),
        ({"labelled": 2}, "data.labelled must be between 3"),
    ],
)
def test_settings_that_do_not_suit_texts(
    said: Make, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        opened(said(60), **settings).setup()
    assert "\n" not in str(raised.value)


def test_a_tokenizer_is_for_texts(held: Make) -> None:
    with pytest.raises(UserError, match=r"data\.tokenizer: expected texts"):
        opened(held([20, 20])).setup()
    with pytest.raises(ValueError, match="length must be >= 1"):
        opened(held([20, 20]), length=0)
    plain = InMemory(held([20, 20]))
    assert plain.tokenizer is None
    assert plain.vocabulary is None
    assert (plain.mean, plain.std, plain.per_token) == (0.0, 1.0, False)


class Shouting(Augmentation):
    """One of the user's own, for texts."""

    def __call__(self, inputs: Any, index: Tensor, epoch: Tensor | int, seed: int) -> Any:
        return inputs._replace(ids=inputs.ids + 1)


def test_an_augmentation_of_the_users_own(said: Make) -> None:
    plain = next(iter(opened(said(60)).train_dataloader()))
    data = opened(said(60), augment=Shouting(), views=2)
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.inputs.ids, plain.inputs.ids + 1)
    assert torch.equal(batch.views[0].ids, plain.inputs.ids + 1)
    val = [next(iter(each.val_dataloader())) for each in (data, opened(said(60)))]
    assert torch.equal(val[0].inputs.ids, val[1].inputs.ids)


def test_too_few_texts_in_words(tagged: Make) -> None:
    with pytest.raises(UserError, match="labels are known of 2 samples, at least 3 are needed"):
        opened(tagged(2)).setup()


def test_nothing_accompanies_plain_arrays(held: Make, tmp_path: Path) -> None:
    InMemory(held([20, 20])).accompany(tmp_path)
    assert list(tmp_path.glob("*.json")) == []


def test_parts_know_which_there_are(said: Make) -> None:
    parts: Parts = said(9, test=3).load()
    assert list(parts.held()) == ["train", "test"]


def test_a_tokenizer_that_is_there(said: Make, tmp_path: Path) -> None:
    first = opened(said(60))
    first.accompany(tmp_path)
    data = opened(said(60), tokenizer=str(tmp_path), length=first.inputs[0])
    assert data.digest == first.digest

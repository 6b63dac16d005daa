"""Masked language modelling: what is hidden, how often, and that it is the same everywhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from ensemble_kd.data import MaskedLanguage
from ensemble_kd.errors import UserError
from ensemble_kd.types import UNLABELLED, Batch, Tokens

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, CLS, SEP, MASK = 0, 2, 3, 4
WORDS = 195
VOCABULARY = len(SPECIAL) + WORDS
LENGTH = 40


def tokenizer(special: tuple[str, ...] = SPECIAL) -> Tokenizer:
    names = [*special, *(f"word{number}" for number in range(VOCABULARY - len(special)))]
    made = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, "[UNK]"))
    made.add_special_tokens(list(special))
    return made


def texts(count: int) -> Tokens:
    """Texts of 1 to ``LENGTH`` - 2 words between [CLS] and [SEP]."""
    generator = torch.Generator().manual_seed(count)
    words = torch.randint(1, LENGTH - 1, (count, 1), generator=generator)
    place = torch.arange(LENGTH).expand(count, -1)
    ids = torch.randint(len(SPECIAL), VOCABULARY, (count, LENGTH), generator=generator)
    ids[place > words + 1] = PAD
    ids[place == words + 1] = SEP
    ids[:, 0] = CLS
    raw = torch.randint(32, 127, (count, 9), generator=generator, dtype=torch.uint8)
    return Tokens(ids, place <= words + 1, (place > words // 2).long(), raw)


class Texts(LightningDataModule):
    """Some texts, of which few have labels, in batches of any size."""

    inputs = (LENGTH,)
    classes = 2
    vocabulary = VOCABULARY
    labelled_only = False

    def __init__(self, count: int = 120, batch_size: int = 16, views: int = 1) -> None:
        super().__init__()
        self.tokens = texts(count)
        self.batch_size = batch_size
        self.views = views
        self.tokenizer: Any = tokenizer()
        self.digest = f"{count} texts"

    def sizes(self) -> dict[str, int]:
        return {"train": len(self.tokens.ids), "labelled": 3, "val": 5, "test": 7}

    def identities(self) -> Any:
        return "identities"

    def train_dataloader(self) -> list[Batch]:
        return self.served(torch.arange(len(self.tokens.ids)))

    def val_dataloader(self) -> list[Batch]:
        return self.served(torch.arange(len(self.tokens.ids)))

    test_dataloader = val_dataloader

    def served(self, rows: Tensor) -> list[Batch]:
        return [self.batch(part) for part in rows.split(self.batch_size)]

    def batch(self, rows: Tensor) -> Batch:
        inputs = Tokens(*(part[rows] for part in self.tokens))
        target = torch.where(rows < 3, 1, UNLABELLED)
        others = (inputs,) * (self.views - 1)
        return Batch(inputs, target, rows, rows < 3, others, labels=0.5, weight=0.75)


def masked(samples: Any = None, epoch: int | None = None, **settings: Any) -> MaskedLanguage:
    data = MaskedLanguage(samples or Texts(), **settings)
    if epoch is not None:
        data.trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
    return data


def whole(batches: Any) -> Batch:
    """All batches as one, in the order of their samples' numbers."""
    served = list(batches)
    index = torch.cat([batch.index for batch in served])
    order = index.argsort()

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts)[order]

    inputs = Tokens(*(joined(list(p)) for p in zip(*(b.inputs for b in served), strict=True)))
    target, mask, places = (
        joined([getattr(batch, name) for batch in served]) for name in ("target", "mask", "places")
    )
    return Batch(inputs, target, index[order], mask, places=places)


def test_what_is_chosen_is_to_be_predicted_and_nothing_else() -> None:
    data = Texts()
    found = whole(masked(data).train_dataloader())
    chosen = found.mask
    assert chosen is not None
    assert torch.equal(found.target[chosen], data.tokens.ids[chosen])
    assert (found.target[~chosen] == UNLABELLED).all()
    assert torch.equal(found.inputs.ids[~chosen], data.tokens.ids[~chosen])
    assert found.places is not None
    assert torch.equal(found.places, data.tokens.mask)
    assert torch.equal(found.inputs.mask, data.tokens.mask)
    assert torch.equal(found.inputs.kinds, data.tokens.kinds)


def test_the_text_does_not_give_away_what_is_hidden() -> None:
    assert whole(masked().train_dataloader()).inputs.text.shape == (120, 0)


def test_nothing_special_is_chosen_or_drawn() -> None:
    data = Texts(3000, 500)
    found = whole(masked(data, share=0.9, hidden=0.0, replaced=1.0).train_dataloader())
    special = data.tokens.ids < len(SPECIAL)
    assert found.mask is not None
    assert not found.mask[special].any()
    assert torch.equal(found.inputs.ids[special], data.tokens.ids[special])
    assert (found.inputs.ids[~special] >= len(SPECIAL)).all()
    assert set(found.inputs.ids[found.mask].tolist()) == set(range(len(SPECIAL), VOCABULARY))


@pytest.mark.parametrize("share", [0.15, 0.4, 1.0])
def test_of_each_text_the_share_is_chosen_and_at_least_one(share: float) -> None:
    data = Texts()
    found = whole(masked(data, share=share).train_dataloader())
    assert found.mask is not None
    for ids, chosen in zip(data.tokens.ids, found.mask, strict=True):
        words = int((ids >= len(SPECIAL)).sum())
        assert int(chosen.sum()) == max(1, round(share * words))


def test_what_becomes_of_the_chosen_has_the_rates_of_the_paper() -> None:
    data = Texts(4000, 500)
    found = whole(masked(data, share=1.0).train_dataloader())
    before, after = data.tokens.ids[found.mask], found.inputs.ids[found.mask]
    assert len(before) > 70_000
    hidden, kept = after == MASK, after == before
    # Of what is replaced one in WORDS is by chance the same; standard deviations are below 0.0015.
    assert float(hidden.float().mean()) == pytest.approx(0.8, abs=0.006)
    assert float(kept.float().mean()) == pytest.approx(0.1 + 0.1 / WORDS, abs=0.005)
    others = after[~hidden & ~kept]
    counts = torch.bincount(others - len(SPECIAL), minlength=WORDS).double()
    expected = counts.sum() / WORDS
    # Chi squared of WORDS - 1 degrees of freedom.
    assert float(((counts - expected) ** 2 / expected).sum()) < WORDS + 5 * (2 * WORDS) ** 0.5


def test_every_place_is_chosen_equally_often() -> None:
    data = Texts(1, 1)
    data.tokens = Tokens(*(part.expand(4000, *part.shape[1:]) for part in data.tokens))
    found = whole(masked(data, share=0.5).train_dataloader())
    may = data.tokens.ids[0] >= len(SPECIAL)
    rate = found.mask.float().mean(dim=0)[may]  # type: ignore[union-attr]
    words = int(may.sum())
    assert words > 5
    assert torch.allclose(rate, torch.full_like(rate, round(0.5 * words) / words), atol=0.04)


def test_what_is_hidden_depends_on_no_batch_and_no_order() -> None:
    alone = whole(masked(Texts(batch_size=1), epoch=3).train_dataloader())
    together = whole(masked(Texts(batch_size=120), epoch=3).train_dataloader())
    shares = Texts(batch_size=7)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    processes = [shares.served(order[rank::3]) for rank in range(3)]
    data = masked(shares, epoch=3)
    batches: list[Batch] = []
    for served in processes:
        shares.served = lambda rows, own=served: own  # type: ignore[method-assign, misc]
        batches.extend(data.train_dataloader())
    for other in (together, whole(batches)):
        assert torch.equal(alone.inputs.ids, other.inputs.ids)
        assert torch.equal(alone.target, other.target)


def test_each_epoch_hides_other_tokens_and_a_second_pass_the_same() -> None:
    data = masked(epoch=0)
    batches = data.train_dataloader()
    first, again = whole(batches), whole(batches)
    data.trainer.current_epoch = 1  # type: ignore[misc, union-attr]
    later = whole(batches)
    assert torch.equal(first.inputs.ids, again.inputs.ids)
    assert not torch.equal(first.target, later.target)


def test_an_epoch_is_the_one_in_which_its_iteration_began() -> None:
    data = masked(epoch=0)
    batches = data.train_dataloader()
    expected = whole(batches)
    begun = iter(batches)
    data.trainer.current_epoch = 1  # type: ignore[misc, union-attr]
    assert torch.equal(whole(begun).target, expected.target)


def test_what_is_held_out_is_always_masked_alike_and_unlike_training() -> None:
    data = masked(epoch=0)
    first = whole(data.val_dataloader())
    data.trainer.current_epoch = 5  # type: ignore[misc, union-attr]
    assert torch.equal(whole(data.val_dataloader()).target, first.target)
    assert torch.equal(whole(data.test_dataloader()).target, first.target)
    data.trainer.current_epoch = 0  # type: ignore[misc, union-attr]
    assert not torch.equal(whole(data.train_dataloader()).target, first.target)


def test_another_seed_hides_other_tokens() -> None:
    first, other = (whole(masked(seed=seed).train_dataloader()) for seed in (0, 1))
    assert not torch.equal(first.target, other.target)


def test_views_hide_other_tokens_of_the_same_text() -> None:
    batch = next(iter(masked(Texts(views=3)).train_dataloader()))
    shown = [batch.inputs, *batch.views]
    assert len(shown) == 3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(shown[one].ids, shown[other].ids)
    alone = next(iter(masked(Texts()).train_dataloader()))
    assert torch.equal(alone.inputs.ids, batch.inputs.ids)


def test_what_it_tells_is_that_of_language_modelling() -> None:
    samples = Texts()
    data = masked(samples)
    assert (data.inputs, data.classes, data.vocabulary) == ((LENGTH,), VOCABULARY, VOCABULARY)
    assert data.names[:6] == (*SPECIAL, "word0")
    assert len(data.names) == data.classes
    assert data.per_token
    assert data.mean is data.std is None
    assert data.tokenizer is samples.tokenizer
    assert data.identities() == "identities"
    assert data.sizes() == {"train": 120, "labelled": 120, "val": 5, "test": 7}
    data.views = 2
    assert samples.views == 2


def test_every_text_teaches_whatever_labels_the_data_has() -> None:
    samples = Texts()
    data = masked(samples)
    data.labelled_only = True
    assert not samples.labelled_only
    found = whole(data.train_dataloader())
    assert found.mask is not None
    assert found.mask.any(dim=1).all()


def test_the_parts_of_a_step_keep_their_weight_and_count_their_own_tokens() -> None:
    batch = next(iter(masked().train_dataloader()))
    assert batch.weight == 0.75
    assert batch.labels is None


def test_the_digest_is_that_of_the_data_and_the_settings() -> None:
    said = [masked(), masked(Texts(60)), masked(seed=1), masked(share=0.2), masked(hidden=0.7)]
    assert masked().digest == said[0].digest
    assert len({data.digest for data in said}) == len(said)


@pytest.mark.parametrize(
    "settings",
    [{"share": 0.0}, {"share": 1.1}, {"hidden": -0.1}, {"hidden": 0.8, "replaced": 0.3}],
    ids=str,
)
def test_shares_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="share"):
        masked(**settings)


def test_data_without_texts_is_refused() -> None:
    samples = Texts()
    samples.tokenizer = None
    with pytest.raises(UserError, match=r"data\.samples: expected texts, got Texts"):
        masked(samples).setup()


def test_a_tokenizer_that_cannot_hide_is_refused() -> None:
    samples = Texts()
    samples.tokenizer = tokenizer(("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    with pytest.raises(UserError, match=r"data\.samples: .* one of \[MASK\], <mask>"):
        masked(samples).setup()

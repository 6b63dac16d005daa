"""Networks of this project that read texts with a tokenizer of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ensemble_kd.artefact import write_artefact
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of
from ensemble_kd.networks import Bert
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.objectives import Cosine, Hint, Matched, Term
from ensemble_kd.objectives.comparison import Comparison
from ensemble_kd.strategies import Parallel
from ensemble_kd.teachers.sources import Artefact, Told
from ensemble_kd.training import frozen
from ensemble_kd.types import Tokens
from ensemble_kd.weightings import Uniform

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "very"]
TEXTS = ["a good film", "a very very bad film", "bad", ("good film", "a bad film")]


def tokenizer(words: list[str], length: int) -> Any:
    made = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    made.enable_truncation(length)
    made.enable_padding(length=length, pad_id=words.index("[PAD]"), pad_token="[PAD]")
    return made


def tokens(made: Any) -> Tokens:
    found = made.encode_batch(TEXTS)
    raw = [t if isinstance(t, str) else "\x1f".join(t) for t in TEXTS]
    width = max(map(len, raw))
    text = torch.tensor([[*each.encode(), *[0] * (width - len(each))] for each in raw])
    return Tokens(
        torch.tensor([each.ids for each in found]),
        torch.tensor([each.attention_mask for each in found]).bool(),
        torch.tensor([each.type_ids for each in found]),
        text.to(torch.uint8),
    )


OWN = tokenizer([*reversed(WORDS)], 9)
"""The teacher's: other numbers, another length, padding that is not number 0."""

DATAS = tokenizer(WORDS, 12)


@pytest.fixture
def teacher() -> Bert:
    torch.manual_seed(0)
    return Bert(len(WORDS), [12], 2, layers=1, width=8, heads=2, inner=8, dropout=0.0).eval()


@pytest.fixture
def folder(tmp_path: Path, teacher: Bert) -> Path:
    OWN.save(str(tmp_path / "tokenizer.json"))
    write_artefact(tmp_path, teacher, constructor_of(teacher), {"digest": "ab"})
    return tmp_path


def told(made: Any, per_token: bool = False) -> Told:
    return Told((12,), ("bad", "good"), tokenizer=made, per_token=per_token)


def test_its_own_tokenizer_reads_the_text(folder: Path, teacher: Bert) -> None:
    loaded = Artefact(str(folder)).load(told(DATAS))
    with torch.no_grad():
        said = loaded.network(tokens(DATAS)).logits
        assert torch.equal(said, teacher(tokens(OWN)))
        assert not torch.allclose(said, teacher(tokens(DATAS)))
    assert isinstance(loaded.network, Prepared)
    assert OWN.get_vocab_size() == len(WORDS)


def test_tokens_of_its_own_tokenizer_are_taken_as_they_are(folder: Path, teacher: Bert) -> None:
    longer = tokenizer([*reversed(WORDS)], 12)  # the length does not make another tokenizer
    loaded = Artefact(str(folder)).load(told(longer))
    assert isinstance(loaded.network, Bert)
    with torch.no_grad():
        assert torch.equal(loaded.network(tokens(longer)), teacher(tokens(longer)))


def test_tokens_with_classes_must_be_its_own(folder: Path) -> None:
    with pytest.raises(UserError, match="its tokenizer is not that of the data, where each token"):
        Artefact(str(folder)).load(told(DATAS, per_token=True))


def test_without_a_tokenizer_nobody_knows_how_it_reads(tmp_path: Path, teacher: Bert) -> None:
    write_artefact(tmp_path, teacher, constructor_of(teacher), {"digest": "ab"})
    with pytest.raises(UserError, match=r"expected tokenizer\.json, with which it reads texts"):
        Artefact(str(tmp_path)).load(told(DATAS))


def test_token_by_token_needs_the_same_tokens(folder: Path) -> None:
    network = Artefact(str(folder)).load(told(DATAS)).network
    layers = ["body.encoder.layer.0"]

    def strategy(comparison: Comparison) -> Parallel:
        return Parallel({"near": Term(Matched(comparison, layers, layers))}, Uniform())

    with pytest.raises(UserError, match="objective: features are compared token by token, and one"):
        frozen(strategy(Cosine()), [network])
    (teacher,) = frozen(strategy(Hint()), [network])
    assert teacher.network is network

"""Pretrained models of the package transformers, from folders that the tests make."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from omegaconf import OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn

from ensemble_kd.build import build
from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of
from ensemble_kd.networks import Transformers
from ensemble_kd.networks.pretrained import folder_digest, places
from ensemble_kd.networks.taps import listen
from ensemble_kd.optional import optional
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store
from ensemble_kd.types import Tokens

SIZES = {"vocab_size": 30, "max_position_embeddings": 16}
WIDE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}


def bert(kind: str = "BertForSequenceClassification", labels: int = 3) -> Any:
    config = transformers.BertConfig(**SIZES, **WIDE, num_labels=labels)
    return getattr(transformers, kind)(config)


def roberta() -> Any:
    config = transformers.RobertaConfig(
        **SIZES, **WIDE, num_labels=3, type_vocab_size=1, pad_token_id=1
    )
    return transformers.RobertaForTokenClassification(config)


def distilbert() -> Any:
    config = transformers.DistilBertConfig(
        **SIZES, dim=8, n_layers=2, n_heads=2, hidden_dim=12, num_labels=3
    )
    return transformers.DistilBertForSequenceClassification(config)


def begun(
    folder: Path, vocabulary: int, inputs: list[int], classes: int, per_token: bool = False
) -> Transformers:
    """A network from what lies in a folder."""
    digest = folder_digest(folder)
    return Transformers(str(folder), vocabulary, inputs, classes, per_token, sha256=digest)


def texts(lengths: list[int], kinds: int = 2) -> Tokens:
    generator = torch.Generator().manual_seed(1)
    shape = (len(lengths), 9)
    return Tokens(
        torch.randint(2, 30, shape, generator=generator),
        torch.arange(9) < torch.tensor(lengths)[:, None],
        torch.randint(kinds, shape, generator=generator),
        torch.zeros(len(lengths), 4, dtype=torch.uint8),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("made", "per_token", "pairs"),
    [
        (bert, False, True),
        (lambda: bert("BertForTokenClassification"), True, True),
        (roberta, True, False),
        (distilbert, False, False),
    ],
    ids=["bert", "bert-tokens", "roberta", "distilbert"],
)
def test_it_says_what_the_model_says(
    folder: Path, made: Callable[[], Any], per_token: bool, pairs: bool
) -> None:
    model = made().eval()
    model.save_pretrained(folder)
    network = begun(folder, 30, [9], 3, per_token).eval()
    inputs = texts([9, 4, 1])
    ids = inputs.ids.masked_fill(~inputs.mask, model.config.pad_token_id)
    kinds = {"token_type_ids": inputs.kinds} if pairs else {}
    with torch.no_grad():
        found = network(inputs)
        expected = model(input_ids=ids, attention_mask=inputs.mask.long(), **kinds).logits
    shown = inputs.mask if per_token else slice(None)
    torch.testing.assert_close(found[shown], expected[shown], rtol=1e-5, atol=1e-6)
    other = inputs._replace(ids=torch.where(inputs.mask, inputs.ids, 7))
    assert torch.equal(network(other)[shown], network(inputs)[shown])


def test_half_precision_weights_are_trained_in_single(folder: Path) -> None:
    bert().half().save_pretrained(folder)
    network = begun(folder, 30, [9], 3)
    assert all(part.training for part in network.modules())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    network(texts([9, 4])).sum().backward()


def test_a_classifier_that_is_not_there_comes_from_the_seed(folder: Path) -> None:
    model = bert("BertForMaskedLM")
    model.save_pretrained(folder)

    def made(seed: int) -> Transformers:
        torch.manual_seed(seed)
        return begun(folder, 30, [9], 5)

    one, again, other = made(0), made(0), made(1)
    assert torch.equal(one.body.classifier.weight, again.body.classifier.weight)
    assert not torch.equal(one.body.classifier.weight, other.body.classifier.weight)
    own = model.bert.encoder.layer[1].output.dense.weight
    assert torch.equal(other.body.bert.encoder.layer[1].output.dense.weight, own)


def test_it_can_be_made_again_without_the_folder(folder: Path) -> None:
    bert().save_pretrained(folder)
    network = begun(folder, 30, [9], 3).eval()
    node = constructor_of(network)
    assert node is not None
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    again = build(node, "network")
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(texts([9, 4])), network(texts([9, 4])))
    assert constructor_of(again) == node


def test_the_digest_of_a_folder_is_that_of_its_weights_and_sizes(folder: Path) -> None:
    model = bert()
    model.save_pretrained(folder)
    before = folder_digest(folder)
    (folder / "README.md").write_text("something else")
    assert folder_digest(folder) == before
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    model.save_pretrained(folder)
    assert folder_digest(folder) != before


def test_the_file_lists_every_argument_and_makes_the_network(folder: Path) -> None:
    distilbert().save_pretrained(folder)
    data = {"inputs": [9], "classes": 3, "vocabulary": 30, "per_token": False}
    student = OmegaConf.load(conf_dir() / "student" / "transformers.yaml")
    config = OmegaConf.create({"data": data, "student": student})
    config.student.path, config.student.sha256 = str(folder), folder_digest(folder)
    node = OmegaConf.to_container(config.student, resolve=True)
    assert isinstance(node, dict)
    assert list(node)[1:] == list(inspect.signature(Transformers).parameters)
    tap = "body.distilbert.transformer.layer.0.attention.q_lin"
    network: nn.Module = build(node, "student")
    assert listen(network, texts([9, 4]), [tap]).features[tap].shape == (2, 9, 8)


def test_the_tokenizer_of_the_model_says_how_many_tokens_there_are(folder: Path) -> None:
    bert().save_pretrained(folder)
    words = {f"w{number}": number for number in range(25)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    begun(folder, 25, [9], 3)
    with pytest.raises(ValueError, match=r"vocabulary must be the 25 tokens of .*, got 24: "):
        begun(folder, 24, [9], 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 4}, "its classifier is made for another number of classes than 4"),
        ({"vocabulary": 31}, "vocabulary must be the 30 tokens of .*, got 31: tokenize the data"),
        ({"inputs": [17]}, "inputs must be at most 16 tokens for .*, got 17"),
        ({"inputs": [17, 2]}, r"inputs must be \(length,\) of a text in tokens"),
        ({"revision": "main"}, "revision must be null for the local folder .*, got main"),
        ({"sha256": None}, "sha256 must be that of .*, [0-9a-f]{64}, got None"),
        ({"sha256": "0" * 64}, "sha256 must be that of .*, [0-9a-f]{64}, got 0000"),
        ({"path": None}, "path must be a folder or .*, got path None and no architecture"),
        ({"architecture": {"model_type": "bert"}}, "path must be .* and an architecture"),
        ({"path": "a/b"}, "path a/b is no folder, and .* 40 hexadecimal digits, got None"),
        ({"path": "a/b", "revision": "main"}, "40 hexadecimal digits, got main"),
        ({"path": "a/b", "revision": "0" * 40}, "path a/b: the model cannot be loaded: "),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, changes: dict[str, Any], message: str) -> None:
    bert().save_pretrained(folder)
    usual = {"path": str(folder), "sha256": folder_digest(folder), "vocabulary": 30}
    sizes = {"inputs": [9], "classes": 3}
    node = {"_target_": "ensemble_kd.networks.Transformers", **usual, **sizes, **changes}
    with pytest.raises(UserError, match=f"student: .*{message}") as refusal:
        build(node, "student")
    assert "\n" not in str(refusal.value)


def test_places_that_roberta_counts_from_the_padding_on(folder: Path) -> None:
    roberta().save_pretrained(folder)
    with pytest.raises(ValueError, match="inputs must be at most 14 tokens"):
        begun(folder, 30, [15], 3, True)


@pytest.mark.parametrize(
    ("kind", "limit"), [("Bert", 16), ("Roberta", 14), ("MPNet", 14), ("XLNet", None)]
)
def test_how_many_tokens_a_network_takes(kind: str, limit: int | None) -> None:
    sizes = {} if kind == "XLNet" else {**SIZES, **WIDE, "pad_token_id": 1}
    small = {"vocab_size": 30, "d_model": 8, "n_layer": 1, "n_head": 2, "d_inner": 12}
    config = getattr(transformers, f"{kind}Config")(**(sizes or small))
    network = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    assert places(network) == limit


def test_no_code_is_run_that_an_architecture_names(monkeypatch: pytest.MonkeyPatch) -> None:
    made = transformers.AutoModelForSequenceClassification.from_config
    seen = []

    def watched(config: Any, **settings: Any) -> Any:
        seen.append(settings)
        return made(config, **settings)

    auto = transformers.AutoModelForSequenceClassification
    monkeypatch.setattr(auto, "from_config", watched)
    architecture = {"model_type": "bert", **SIZES, **WIDE, "_attn_implementation": "some/kernel"}
    network = Transformers(None, 30, [9], 2, architecture=architecture)
    assert network.body.config._attn_implementation == "eager"
    assert seen == [{"attn_implementation": "eager", "trust_remote_code": False}]


def test_pickled_weights_are_not_read(folder: Path) -> None:
    model = bert()
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="the model cannot be loaded"):
        begun(folder, 30, [9], 3)


def test_a_package_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError("no", name=module)

    monkeypatch.setattr("importlib.import_module", missing)
    message = r"Bert needs the package 'transformers': pip install ensemble-kd\[text\]$"
    with pytest.raises(UserError, match=message):
        optional("transformers", "text", "Bert")


def test_what_such_a_package_misses_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError("no", name="numpy")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="no"):
        optional("transformers", "text", "Bert")


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
def test_the_artefact_of_a_trained_one_needs_no_folder(folder: Path, text_root: Path) -> None:
    bert("BertForMaskedLM").save_pretrained(folder)
    tokens = ["[PAD]", "[UNK]", *(f"w{number}" for number in range(28))]
    words = {token: number for number, token in enumerate(tokens)}
    Tokenizer(WordLevel(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    overrides = [
        "data=sst2",
        "data.tokenizer._target_=ensemble_kd.data.Pretrained",
        "~data.tokenizer.size",
        f"+data.tokenizer.path={folder}",
        "data.length=12",
        f"paths.data={text_root}",
        "student=transformers",
        f"student.path={folder}",
        f"student.sha256={folder_digest(folder)}",
        "teacher.members=[bilstm]",
        "epochs=1",
        "teacher.epochs=1",
        "controls=[]",
        "+trainer.limit_train_batches=2",
        "+trainer.limit_val_batches=0",
    ]
    plan = make_plan(compose(overrides))
    product = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()["student"]
    for file in folder.iterdir():
        file.unlink()
    trained = product.learner.deliverable()
    again = product.artefact.network()
    assert type(again) is Transformers
    for name, value in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)

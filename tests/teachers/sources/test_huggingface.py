"""Networks of transformers: how they read texts and images, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ensemble_kd.networks.prepared import Prepared, inside
from ensemble_kd.networks.taps import listen
from ensemble_kd.teachers.sources import HuggingFace, Told
from ensemble_kd.teachers.sources.reading import Reading

Refusal = Callable[[Callable[[], object]], str]


def edited(folder: Path, file: str = "config.json", **changes: Any) -> None:
    said = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**said, **changes}))


def reading(case: Any) -> Reading:
    network = case.source.load(case.told).network
    assert isinstance(network, Prepared)
    assert isinstance(network.prepare, Reading)
    return network.prepare


def test_the_tokens_of_the_data_are_taken_when_they_are_the_same(make: Any) -> None:
    case = make("huggingface_texts")
    given = reading(case)(case.inputs)
    assert torch.equal(given["input_ids"], case.inputs.ids)
    assert torch.equal(given["token_type_ids"], case.inputs.kinds)
    assert case.inputs.kinds.any()
    # The text is not even looked at.
    blank = case.inputs._replace(text=torch.zeros_like(case.inputs.text))
    assert torch.equal(reading(case)(blank)["input_ids"], case.inputs.ids)


def test_padding_of_the_data_becomes_that_of_the_network(make: Any) -> None:
    case = make("huggingface_texts")
    other = case.inputs._replace(ids=case.inputs.ids.masked_fill(~case.inputs.mask, 5))
    assert torch.equal(reading(case)(other)["input_ids"], case.inputs.ids)


def test_another_tokenizer_reads_the_text(make: Any) -> None:
    case = make("huggingface_other_tokens")
    own = reading(case)
    given = own(case.inputs)
    assert given["input_ids"].shape == (6, 9)
    # Its padding stands in front.
    lengths = given["attention_mask"].sum(dim=1)
    assert lengths.min() < 9
    for row, length in enumerate(lengths.tolist()):
        assert given["attention_mask"][row, -length:].all()
        assert (given["input_ids"][row, : 9 - length] == 0).all()
    # The numbers of the data's tokens do not matter, and nothing is read twice.
    blind = case.inputs._replace(ids=torch.zeros_like(case.inputs.ids))
    own.encoder.tokenizer.no_truncation()
    assert torch.equal(own(blind)["input_ids"], given["input_ids"])


def test_a_network_that_pads_on_the_left_reads_the_text_whatever_the_tokenizer(
    make: Any, tmp_path: Path
) -> None:
    case = make("huggingface_texts")
    edited(tmp_path / "teacher", "tokenizer_config.json", padding_side="left")
    own = reading(case)
    assert not own.as_given
    given = own(case.inputs)
    assert torch.equal(given["attention_mask"].flip(1), case.inputs.mask.long())


def test_what_it_has_read_travels_with_no_copy(make: Any) -> None:
    case = make("huggingface_other_tokens")
    own = reading(case)
    empty = len(pickle.dumps(own.encoder))
    own(case.inputs)
    assert len(pickle.dumps(own.encoder)) == empty


def test_a_batch_has_one_length_whatever_is_in_it(make: Any) -> None:
    case = make("huggingface_other_tokens")
    own = reading(case)
    alone = own(type(case.inputs)(*(part[:1] for part in case.inputs)))
    assert alone["input_ids"].shape == (1, 9)
    assert torch.equal(alone["input_ids"], own(case.inputs)["input_ids"][:1])


def test_names_of_the_classes(make: Any) -> None:
    case = make("huggingface_texts")
    assert case.source.load(case.told).names == ("cat", "bee", "ant")
    generic = make("huggingface_other_tokens", folder="generic")
    assert generic.source.load(generic.told).names is None


def test_layers_are_named_as_in_the_network_itself(make: Any) -> None:
    case = make("huggingface_texts")
    network = case.source.load(case.told).network
    with torch.no_grad():
        said = listen(network, case.inputs, ["bert.encoder.layer.1", "bert.pooler.activation"])
    assert said.features["bert.encoder.layer.1"].shape == (6, 12, 16)
    assert said.features["bert.pooler.activation"].shape == (6, 16)
    assert type(inside(network)).__name__ == "BertForSequenceClassification"


def test_arguments_and_files_are_in_the_digest(make: Any, tmp_path: Path) -> None:
    case = make("huggingface_other_tokens")
    first = case.source.load(case.told).digest
    assert replace(case.source, length=10).load(case.told).digest != first
    assert replace(case.source, attention="eager").load(case.told).digest != first
    edited(tmp_path / "teacher", "tokenizer_config.json", something="else")
    assert case.source.load(case.told).digest != first


def test_nothing_random_stands_in_for_missing_weights(make: Any, refusal: Refusal) -> None:
    from transformers import BertModel

    case = make("huggingface_texts")
    folder = Path(case.source.path)
    config = (folder / "config.json").read_text()
    BertModel.from_pretrained(folder).save_pretrained(folder)
    (folder / "config.json").write_text(config)
    said = refusal(lambda: case.source.load(case.told))
    assert "2 missing: classifier.bias, classifier.weight" in said
    edited(folder, hidden_size=8, num_attention_heads=2)
    assert "wrong shapes: bert.embeddings" in refusal(lambda: case.source.load(case.told))


def test_weights_that_no_layer_takes_are_named(make: Any, refusal: Refusal) -> None:
    case = make("huggingface_tokens")
    file = Path(case.source.path, "model.safetensors")
    held = load_file(file)
    # As files keep them that were trained on from a pretrained network.
    rest = {"bert.pooler.dense.bias": torch.ones(2), "bert.embeddings.position_ids": torch.ones(2)}
    save_file({**held, **rest}, file, {"format": "pt"})
    case.source.load(case.told)
    save_file({**held, "bert.encoder.gate": torch.ones(2)}, file, {"format": "pt"})
    assert "1 unexpected: bert.encoder.gate" in refusal(lambda: case.source.load(case.told))


def test_its_configuration_brings_no_code_and_no_other_weights(
    make: Any, tmp_path: Path, refusal: Refusal
) -> None:
    case = make("huggingface_texts")
    folder = Path(case.source.path)
    expected = inside(case.source.load(case.told).network).state_dict()
    other = make("huggingface_texts", 1, "other").source.path
    shutil.copy(Path(other, "model.safetensors"), folder / "else.safetensors")
    edited(folder, _attn_implementation="somebody/kernel", transformers_weights="else.safetensors")
    network: Any = inside(case.source.load(case.told).network)
    assert network.config._attn_implementation == "sdpa"
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    eager: Any = inside(replace(case.source, attention="eager").load(case.told).network)
    assert eager.config._attn_implementation == "eager"
    edited(folder, id2label={"1": "ant", "2": "bee", "3": "cat"})
    assert "expected id2label to name the classes 0 to 2, got 1, 2, 3" in refusal(
        lambda: case.source.load(case.told)
    )
    (folder / "adapter_config.json").write_text("{}")
    assert "got an adapter" in refusal(lambda: case.source.load(case.told))


def test_weights_in_several_files(make: Any, refusal: Refusal) -> None:
    case = make("huggingface_texts")
    folder = Path(case.source.path)
    whole = case.source.load(case.told)
    index = folder / "model.safetensors.index.json"
    save_file(load_file(folder / "model.safetensors"), folder / "other.safetensors")
    (folder / "model.safetensors").unlink()
    assert "got other.safetensors" in refusal(lambda: case.source.load(case.told))
    inside(whole.network).save_pretrained(folder, max_shard_size="4KB")  # type: ignore[operator]
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    assert len(names) > 1
    parted = case.source.load(case.told)
    with torch.no_grad():
        said, same = parted.network(case.inputs), whole.network(case.inputs)
    assert torch.equal(said.logits, same.logits)
    # What the index does not name is nobody's.
    (folder / "other.safetensors").write_bytes(b"something else")
    assert case.source.load(case.told).digest == parted.digest
    held = load_file(folder / names[0])
    save_file({key: value + 1 for key, value in held.items()}, folder / names[0], {"format": "pt"})
    assert case.source.load(case.told).digest != parted.digest
    (folder / names[0]).unlink()
    assert f"{names[0]}: no such file" in refusal(lambda: case.source.load(case.told))
    for wrong in ("../w.safetensors", "sub/w.safetensors", "/w.safetensors", "weights.bin", 3):
        index.write_text(json.dumps({"weight_map": {"a": wrong}}))
        said = refusal(lambda: case.source.load(case.told))
        assert f"expected names of files *.safetensors, got {wrong!r}" in said
    for broken in ("{", "[]", '{"weight_map": 3}'):
        index.write_text(broken)
        assert "expected weight_map" in refusal(lambda: case.source.load(case.told))


def test_places_that_are_counted_from_the_padding_on(
    kit: Any, tmp_path: Path, refusal: Refusal
) -> None:
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.RobertaConfig(
        **sizes, vocab_size=32, intermediate_size=24, max_position_embeddings=14, pad_token_id=0
    )
    network = transformers.RobertaForSequenceClassification(config)
    network.save_pretrained(tmp_path)
    kit.saved_tokenizer(tmp_path, kit.tokenizer())
    source = HuggingFace(str(tmp_path))
    source.load(Told((13,), ("a", "b"), tokenizer=kit.tokenizer()))
    long = Told((14,), ("a", "b"), tokenizer=kit.tokenizer())
    assert "expected at most 13 tokens, got 14" in refusal(lambda: source.load(long))


def test_the_architecture_says_what_it_is_for(make: Any, refusal: Refusal) -> None:
    case = make("huggingface_texts")
    folder = Path(case.source.path)
    edited(folder, architectures=None)
    assert "say task: image-classification" in refusal(lambda: case.source.load(case.told))
    replace(case.source, task="text-classification").load(case.told)
    edited(folder, architectures=["BertForMaskedLM"])
    assert "expected a classifier, got BertForMaskedLM" in refusal(
        lambda: case.source.load(case.told)
    )


def test_data_of_another_kind(make: Any, refusal: Refusal) -> None:
    case, images = make("huggingface_texts"), make("huggingface_images", folder="images")

    def line(source: HuggingFace, told: Told) -> str:
        return refusal(lambda: source.load(told))

    assert "expected data for text-classification, got images" in line(case.source, images.told)
    assert "got texts with a class for each text" in line(images.source, case.told)
    assert "got texts with a class for each token" in line(
        case.source, replace(case.told, per_token=True)
    )

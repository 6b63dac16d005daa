"""Networks of transformers that cannot be loaded: one line for each mistake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.teachers.sources import HuggingFace, Told

Refusal = Callable[[Callable[[], object]], str]


def edited(folder: Path, file: str = "config.json", **changes: Any) -> None:
    said = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**said, **changes}))


def test_one_line_for_each_mistake(make: Any, tmp_path: Path, refusal: Refusal) -> None:
    case = make("huggingface_texts")
    whole = Path(case.source.path)

    def line(change: Callable[[Path], object], told: Told = case.told, **arguments: Any) -> str:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        change(folder)
        return refusal(lambda: HuggingFace(str(folder), **arguments).load(told))

    def cut(name: str, share: float) -> Callable[[Path], object]:
        content = (whole / name).read_bytes()
        return lambda f: (f / name).write_bytes(content[: int(share * len(content))])

    assert "expected a tokenizer such as tokenizer.json, found none" in line(
        lambda f: (f / "tokenizer.json").unlink()
    )
    assert "the tokenizer cannot be loaded" in line(cut("tokenizer.json", 0.5))
    assert "expected config.json" in line(lambda f: (f / "config.json").unlink())
    assert "config.json: " in line(cut("config.json", 0.5))
    assert "the network cannot be loaded" in line(cut("model.safetensors", 0.5))
    assert "the network cannot be loaded" in line(cut("model.safetensors", 0))
    assert "expected weights as model.safetensors, found none" in line(
        lambda f: (f / "model.safetensors").unlink()
    )
    assert "got pytorch_model.bin; nothing is unpickled" in line(
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin")
    )
    assert "expected a classifier of two or more classes" in line(
        lambda f: edited(f, problem_type="multi_label_classification")
    )

    def unpadded(folder: Path) -> None:
        edited(folder, "tokenizer_config.json", pad_token=None)
        edited(folder, pad_token_id=None)

    assert "expected a tokenizer with a token for padding, got one without" in line(unpadded)
    longer = replace(case.told, inputs=(99,))
    assert "data.length: expected at most 16 tokens, got 99" in line(lambda f: None, longer)


def test_another_tokenizer_has_no_classes_for_tokens_of_the_data(
    make: Any, refusal: Refusal
) -> None:
    case, other = make("huggingface_tokens"), make("huggingface_other_tokens", folder="other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(other.source.path, name), Path(case.source.path, name))
    said = refusal(lambda: case.source.load(case.told))
    assert "its tokenizer is not that of the data, where each token has a class" in said
    long = replace(other.source, length=17)
    assert "length: expected at most 16" in refusal(lambda: long.load(other.told))


def test_a_hub_needs_a_revision_that_stays(refusal: Refusal) -> None:
    told = Told((3, 8, 8), ("a", "b"))

    def line(path: str, revision: str | None = None) -> str:
        return refusal(lambda: HuggingFace(path, revision).load(told))

    for revision in (None, "main", "v1.0", "0" * 39):
        said = line("somebody/network", revision)
        assert "somebody/network: no such folder; as the id of a repository on the hub" in said
        assert f"as revision the commit, 40 hexadecimal digits, got {revision!r}" in said
    assert "./network: expected a folder, found none" in line("./network")
    assert "not on the hub" in line("somebody/network", "0" * 40)


def test_length_out_of_range() -> None:
    with pytest.raises(ValueError, match="length must be >= 1"):
        HuggingFace("folder", length=0)

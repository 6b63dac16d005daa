"""A network that this project trained, as a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd.artefact import read_artefact, write_artefact
from ensemble_kd.export import constructor_of
from ensemble_kd.teachers.sources import Artefact, Preprocess

Refusal = Callable[[Callable[[], object]], str]


def test_it_is_known_by_its_folder_and_what_is_in_it(make: Any) -> None:
    case = make("artefact")
    loaded = case.source.load(case.told)
    held = read_artefact(Path(case.source.path))
    assert loaded.digest == held.identity
    assert loaded.folder == Path(case.source.path)


def test_preprocessing_makes_it_another_one(make: Any) -> None:
    case, expected = make("artefact"), make("preprocessed", folder="same")
    preprocess = Preprocess(mean=0.5, std=(0.5, 0.25, 1.0))
    loaded = replace(case.source, preprocess=preprocess).load(case.told)
    with torch.no_grad():
        said = loaded.network(case.inputs).logits
    torch.testing.assert_close(said, expected.native, rtol=1e-4, atol=1e-4)
    assert loaded.digest != case.source.load(case.told).digest
    other = replace(case.source, preprocess=Preprocess(mean=0.5)).load(case.told)
    assert other.digest != loaded.digest
    told = replace(case.told, mean=0.0)
    assert replace(case.source, preprocess=preprocess).load(told).digest != loaded.digest


@pytest.mark.parametrize(
    ("classes", "names"),
    [(["cat", "ant", "bee"], ("cat", "ant", "bee")), (["0", "1", "2"], None), (None, None)],
)
def test_names_are_those_it_was_trained_with(
    classes: list[str] | None, names: Any, make: Any, tmp_path: Path
) -> None:
    case = make("artefact")
    teacher = case.source.load(case.told).network
    node = constructor_of(teacher)
    (tmp_path / "named").mkdir()
    write_artefact(tmp_path / "named", teacher, node, {"digest": "1", "classes": classes})
    assert Artefact(str(tmp_path / "named")).load(case.told).names == names


@pytest.mark.parametrize("name", ["weights.safetensors", "network.yaml"])
def test_a_file_that_was_changed(name: str, make: Any, refusal: Refusal) -> None:
    case = make("artefact")
    file = Path(case.source.path, name)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{name}: wrong digest" in refusal(lambda: case.source.load(case.told))
    file.unlink()
    assert f"{name}: expected a file of the artefact" in refusal(
        lambda: case.source.load(case.told)
    )


def test_something_else(make: Any, tmp_path: Path, refusal: Refusal) -> None:
    case = make("artefact")
    assert "expected an artefact folder" in refusal(lambda: Artefact(str(tmp_path)).load(case.told))
    provenance = Path(case.source.path, "provenance.json")
    said = json.loads(provenance.read_text())
    provenance.write_text(json.dumps({key: said[key] for key in said if key != "files"}))
    assert "expected the provenance of an artefact" in refusal(lambda: case.source.load(case.told))

"""The constructor nodes of artefacts: hostile ones construct nothing."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensemble_kd import load
from ensemble_kd.files import file_digest

SYSTEM = {"_target_": "os.system", "command": "mkdir CANARY"}
NETWORK = {"_target_": "ensemble_kd.networks.Mlp", "inputs": [4], "classes": 3, "hidden": [5]}


@pytest.fixture
def nothing_constructed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is refused before the first of its parts is made."""

    def made(*_: Any, **__: Any) -> None:
        raise AssertionError("something was constructed")

    monkeypatch.setattr("hydra.utils.instantiate", made)


TARGETS = {
    "os_system": SYSTEM,
    "os_mkdir": {"_target_": "os.mkdir", "path": "CANARY"},
    "builtins_exec": {"_target_": "builtins.exec", "_args_": ["import os; os.mkdir('CANARY')"]},
    "subprocess": {"_target_": "subprocess.Popen", "args": ["mkdir", "CANARY"]},
    "torch_load": {"_target_": "torch.load", "f": "PICKLE", "weights_only": False},
    "torch_hub": {"_target_": "torch.hub.load", "repo_or_dir": ".", "source": "local"},
    "joblib": {"_target_": "joblib.load", "filename": "PICKLE"},
    "numpy": {"_target_": "numpy.load", "file": "PICKLE", "allow_pickle": True},
    "hydra": {"_target_": "hydra.utils.instantiate", "config": SYSTEM, "_recursive_": False},
    "through_this_package": {"_target_": "ensemble_kd.job.os.system", "command": "mkdir CANARY"},
    "through_torch_nn": {"_target_": "torch.nn.modules.module.torch.load", "f": "PICKLE"},
    "class_method": {
        "_target_": "pytorch_lightning.LightningModule.load_from_checkpoint",
        "checkpoint_path": "PICKLE",
    },
    "demo_that_unpickles": {
        "_target_": "pytorch_lightning.demos.mnist_datamodule.MNISTDataModule",
    },
    "command_line_of_lightning": {"_target_": "pytorch_lightning.cli.LightningCLI"},
    "writer_of_lightning": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "."},
    "metric_that_downloads": {
        "_target_": "torchmetrics.multimodal.CLIPScore",
        "model_name_or_path": "stranger/model",
    },
    "source_of_this_package": {
        "_target_": "ensemble_kd.teachers.sources.Sklearn",
        "path": "PICKLE",
        "trusted": ["os.mkdir"],
    },
    "allows_itself": {
        "_target_": "ensemble_kd.strategies.FeaturesFirst",
        "allow": ["os"],
        "otherwise": {"x": SYSTEM},
    },
    "kernel_from_a_hub": {
        "_target_": "transformers.BertModel",
        "config": {
            "_target_": "transformers.BertConfig",
            "attn_implementation": "stranger/kernel",
        },
    },
    "weights_from_a_hub": {
        "_target_": "ensemble_kd.networks.Transformers",
        "path": "stranger/model",
        "revision": "0" * 40,
        "vocabulary": 9,
        "inputs": [4],
        "classes": 3,
    },
    "repository_of_timm": {
        "_target_": "transformers.TimmWrapperModel",
        "config": {
            "_target_": "transformers.TimmWrapperConfig",
            "architecture": "hf-hub:stranger/model",
        },
    },
    "folder_of_timm": {
        "_target_": "transformers.TimmWrapperModel",
        "config": {"_target_": "transformers.TimmWrapperConfig", "architecture": "local-dir:/"},
    },
    "private": {"_target_": "ensemble_kd.networks._anything.Net"},
    "main_module": {"_target_": "ensemble_kd.__main__.main"},
    "relative": {"_target_": "..os.system", "command": "mkdir CANARY"},
    "a_list": {"_target_": ["os.system"], "command": "mkdir CANARY"},
    "control_characters": {"_target_": "os.system\n\x1b[2J\u202e", "command": "mkdir CANARY"},
}

PLACES: dict[str, Callable[[Any], Any]] = {
    "nested": lambda node: {**NETWORK, "classes": node},
    "in_a_list": lambda node: {**NETWORK, "hidden": [5, [node]]},
    "in_a_mapping": lambda node: {**NETWORK, "hidden": {"a": {"b": node}}},
    "partial": lambda node: {**node, "_partial_": True},
    "not_recursive": lambda node: {**NETWORK, "_recursive_": False, "classes": node},
    "converted": lambda node: {**node, "_convert_": "object"},
    "positional": lambda node: {**NETWORK, "_args_": [node]},
    "first_in_a_list": lambda node: [node],
    "interpolated": lambda node: {**NETWORK, "x": node, "classes": "${x}"},
    "interpolated_target": lambda node: {**node, "name": node["_target_"], "_target_": "${name}"},
    "environment": lambda _: {**NETWORK, "classes": "${oc.env:HOME}"},
    "created": lambda node: {**NETWORK, "classes": f"${{oc.create:${{oc.decode:'{node}'}}}}"},
}


def refusal_of(
    node: Any, artefact: Path, canary: Path, refused: Callable[..., str], text: str = ""
) -> str:
    """What loading an artefact says whose constructor is another one, with the right digest."""
    pickled = artefact.parent / "held.pkl"
    said = text or yaml.safe_dump(node)
    said = said.replace("CANARY", str(canary)).replace("PICKLE", str(pickled))
    (artefact / "network.yaml").write_text(said)
    provenance = json.loads((artefact / "provenance.json").read_text())
    provenance["files"]["network.yaml"] = file_digest(artefact / "network.yaml")
    (artefact / "provenance.json").write_text(json.dumps(provenance))
    return refused(lambda: load(artefact))


def test_the_artefact_itself_can_be_loaded(artefact: Path) -> None:
    assert type(load(artefact)).__name__ == "Mlp"


@pytest.mark.usefixtures("nothing_constructed")
@pytest.mark.parametrize("name", TARGETS)
def test_a_hostile_target_constructs_nothing(
    name: str, artefact: Path, canary: Path, charge: Any, refused: Callable[..., str]
) -> None:
    (artefact.parent / "held.pkl").write_bytes(pickle.dumps(charge))
    said = refusal_of(TARGETS[name], artefact, canary, refused)
    assert re.search("expected|defined in|null|has no", said)


@pytest.mark.usefixtures("nothing_constructed")
@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_node_constructs_nothing_wherever_it_stands(
    place: str, artefact: Path, canary: Path, refused: Callable[..., str]
) -> None:
    assert "network.yaml" in refusal_of(PLACES[place](SYSTEM), artefact, canary, refused)


LAUGHS = "\n".join(["a: &a [x, x]", *(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip(
    [chr(97 + i) for i in range(25)], [chr(98 + i) for i in range(25)], strict=True
))])  # fmt: skip

TEXTS = {
    "python_tag": "!!python/object/apply:os.system ['mkdir CANARY']",
    "python_name": "a: !!python/name:os.system",
    "python_module": "a: !!python/module:antigravity",
    "many_laughs": LAUGHS,
    "endless": "&a [*a]",
    "deep": "[" * 5000,
    "deep_block": "\n".join(" " * n + "a:" for n in range(200)),
    "binary": "\x00\x01\x02",
    "another_alphabet": "\udce4",
    "twice": "_target_: ensemble_kd.networks.Mlp\n_target_: os.system",
    "two_documents": "a: 1\n---\n_target_: os.system",
    "nothing": "",
    "number_as_name": f"{yaml.safe_dump(NETWORK)}1: 2",
    "long_number": f"{yaml.safe_dump(NETWORK)}dropout: 0x{'f' * 6000}",
    "number_in_minutes": f"{yaml.safe_dump(NETWORK)}dropout: 1{':0' * 600}",
    "broken_interpolation": "_target_: ensemble_kd.networks.Mlp\nclasses: ${",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_no_plain_yaml_is_refused(
    name: str, artefact: Path, canary: Path, refused: Callable[..., str]
) -> None:
    text = TEXTS[name]
    if name == "another_alphabet":
        (artefact / "network.yaml").write_bytes(b"a: \xe4\xff")
        text = ""
    file = artefact / "network.yaml"
    if text or name == "nothing":
        file.write_text(text.replace("CANARY", str(canary)))
    provenance = json.loads((artefact / "provenance.json").read_text())
    provenance["files"]["network.yaml"] = file_digest(file)
    (artefact / "provenance.json").write_text(json.dumps(provenance))
    assert "network.yaml" in refused(lambda: load(artefact))

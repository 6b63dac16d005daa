"""Every file of conf/student makes a network."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ensemble_kd import networks
from ensemble_kd.build import build
from ensemble_kd.types import Tokens

FILES = sorted((Path(__file__).parents[2] / "conf" / "student").rglob("*.yaml"))
OF_TEXTS = [file for file in FILES if "${data.vocabulary}" in file.read_text()]
COMPLETE = [file for file in OF_TEXTS if "???" not in file.read_text()]
"""The others need a folder: test_pretrained.py."""
OF_IMAGES = [
    file for file in FILES if not {"???", "${data.vocabulary}"} & set(file.read_text().split())
]
"""Of those that need a name, see test_timm.py."""
TEXTS = {"inputs": [64], "classes": 2, "vocabulary": 8_000, "per_token": False}
DIGITS = {"inputs": [1, 8, 8], "classes": 10}
CIFAR100 = {"inputs": [3, 32, 32], "classes": 100}

COUNTS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn16_1": 180_916,
    "wrn16_2": 703_284,
    "wrn28_10": 36_536_884,
    "wrn40_1": 569_780,
    "wrn40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "mobilenetv2": 812_836,
    "shufflenetv2": 1_355_528,
}
"""Parameters with 100 classes; where they come from is said beside the tests of the sizes."""


def node(file: Path, data: dict[str, Any]) -> dict[str, Any]:
    config = OmegaConf.create({"data": data, "student": OmegaConf.load(file)})
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    student = resolved["student"]
    assert isinstance(student, dict)
    return {str(key): value for key, value in student.items()}


def made(file: Path, data: dict[str, Any], device: str = "cpu") -> nn.Module:
    with torch.device(device):
        network = build(node(file, data), "student")
    assert isinstance(network, nn.Module)
    return network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_there_are_files() -> None:
    assert {file.stem for file in FILES} >= COUNTS.keys() | {"cnn_tiny", "cnn_large"}


@pytest.mark.parametrize("file", OF_IMAGES, ids=lambda file: file.stem)
def test_the_network_classifies(file: Path) -> None:
    heavy = file.stem in COUNTS
    network = made(file, CIFAR100 if heavy else DIGITS, "meta" if heavy else "cpu").eval()
    shape = (2, 3, 32, 32) if heavy else (2, 1, 8, 8)
    with torch.no_grad():
        logits = network(torch.zeros(shape, device="meta" if heavy else "cpu"))
    assert logits.shape == (2, 100 if heavy else 10)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_argument_is_listed(file: Path) -> None:
    arguments = node(file, TEXTS if file in OF_TEXTS else DIGITS)
    cls = getattr(networks, arguments.pop("_target_").rpartition(".")[2])
    assert list(arguments) == list(inspect.signature(cls).parameters)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_first_line_says_what_it_is(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    assert first.startswith("# ")
    claimed = re.search(r"([\d,]+) parameters (?:on digits|with 8,000 tokens)", first)
    if file in OF_IMAGES:
        assert (claimed is None) == (file.stem in COUNTS)
    if claimed:
        data = TEXTS if file in OF_TEXTS else DIGITS
        assert count(made(file, data)) == int(claimed[1].replace(",", ""))


@pytest.mark.parametrize("name", COUNTS)
def test_the_networks_for_cifar_have_their_sizes(name: str) -> None:
    (file,) = [file for file in FILES if file.stem == name]
    assert count(made(file, CIFAR100, "meta")) == COUNTS[name]


def test_students_are_smaller_than_assistants_and_these_than_teachers() -> None:
    light = [file for file in OF_IMAGES if file.stem not in COUNTS]
    sizes = {file.stem: count(made(file, DIGITS)) for file in light}
    assert sizes["cnn_tiny"] < sizes["cnn_small"] < sizes["cnn_medium"] < sizes["cnn_large"]
    assert 600 <= sizes["cnn_tiny"] <= 760
    teachers = (sizes["cnn_large"], sizes["mlp_large"], sizes["resnet_small"])
    assert min(teachers) > 4 * sizes["cnn_medium"]


@pytest.mark.parametrize("file", OF_IMAGES, ids=lambda file: file.stem)
def test_other_images_do_as_well(file: Path) -> None:
    data = {"inputs": [1, 28, 28], "classes": 7}
    network = made(file, data, "meta").eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 28, 28, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("file", COMPLETE, ids=lambda file: file.stem)
def test_the_network_reads_texts(file: Path) -> None:
    inputs = Tokens(*[torch.ones(2, 64, dtype=torch.int64)] * 4)
    inputs = inputs._replace(mask=torch.arange(64) < torch.tensor([[64], [5]]))
    network = made(file, TEXTS).eval()
    with torch.no_grad():
        assert network(inputs).shape == (2, 2)

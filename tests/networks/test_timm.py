"""Networks of timm as students, by a stand-in for the library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ensemble_kd.build import build
from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of
from ensemble_kd.files import file_digest
from ensemble_kd.networks import TimmNetwork
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store

LIBRARY = """
from torch import nn
__version__ = "0"
class Net(nn.Module):
    default_cfg = {"classifier": "fc"}
    def __init__(self, num_classes, in_chans, width=4):
        super().__init__()
        self.body = nn.Conv2d(in_chans, width, 3)
        self.fc = nn.Linear(width, num_classes)
    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)).relu())
def list_models():
    return ["net"]
def create_model(name, pretrained, **arguments):
    assert not pretrained
    return Net(**arguments)
"""


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in for timm, importable under its name."""
    (tmp_path / "timm.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    import timm

    del sys.modules["timm"]
    monkeypatch.setitem(sys.modules, "timm", timm)
    return timm


@pytest.fixture
def weights(library: Any, tmp_path: Path) -> str:
    torch.manual_seed(1)
    save_file(library.Net(7, 1).state_dict(), tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def test_sizes_are_those_of_the_data() -> None:
    network = TimmNetwork((2, 8, 8), 5, "net", arguments={"width": 6})
    assert network(torch.zeros(3, 2, 8, 8)).shape == (3, 5)
    assert network.state_dict()["network.body.weight"].shape == (6, 2, 3, 3)
    node = constructor_of(network)
    assert node is not None
    assert node["arguments"] == {"width": 6}
    assert build(node, "student").state_dict().keys() == network.state_dict().keys()


def test_begins_with_weights_whose_classifier_fits_or_is_left_out(weights: str) -> None:
    digest = file_digest(Path(weights))
    same = TimmNetwork((1, 8, 8), 7, "net", weights, digest).network
    torch.manual_seed(0)
    new = TimmNetwork((1, 8, 8), 5, "net").network
    torch.manual_seed(0)
    other = TimmNetwork((1, 8, 8), 5, "net", weights, digest).network
    assert isinstance(same, nn.Module)
    for name, value in other.state_dict().items():
        source = new if name.startswith("fc.") else same
        assert torch.equal(value, source.state_dict()[name])
    assert not torch.equal(other.state_dict()["body.bias"], new.state_dict()["body.bias"])


def test_its_weights_are_no_part_of_what_it_is(weights: str) -> None:
    network = TimmNetwork((1, 8, 8), 5, "net", weights, file_digest(Path(weights)))
    node = constructor_of(network)
    assert node is not None
    assert node["weights"] is None
    assert node["sha256"] is None


def test_an_artefact_can_do_without_the_file(weights: str) -> None:
    overrides = (
        *("student=timm", "student.name=net", f"student.weights={weights}"),
        f"student.sha256={file_digest(Path(weights))}",
        *("teacher=none", "strategy=mutual", "strategy.taught=false", "controls=[]"),
        *("epochs=1", "+trainer.limit_train_batches=1", "+trainer.limit_val_batches=0"),
    )
    plan = make_plan(compose([*overrides, "logger=none"]))
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    Path(weights).unlink()
    artefact = products["student"].artefact
    again = artefact.network()
    inputs = torch.rand(2, 1, 8, 8)
    expected = products["student"].deliverable()(inputs)
    torch.testing.assert_close(again(inputs), expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "nets"}, "timm has no network 'nets'; did you mean 'net'?"),
        ({"arguments": {"depth": 3}}, "timm: net: .*depth"),
        ({"arguments": {"checkpoint_path": "w.pth"}}, "not hold checkpoint_path: weights come"),
        ({"arguments": {"num_classes": 3}}, "arguments must not hold num_classes"),
        ({"inputs": (8,)}, "inputs must be"),
        ({"classes": 1}, "classes must be >= 2"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"inputs": (1, 8, 8), "classes": 5, "name": "net", **arguments}
    with pytest.raises(ValueError, match=said) as refusal:
        TimmNetwork(**given)
    assert "\n" not in str(refusal.value)


def test_weights_and_their_digest(weights: str) -> None:
    with pytest.raises(ValueError, match=r"sha256 must be that of .*, got None"):
        TimmNetwork((1, 8, 8), 5, "net", weights)
    digest = file_digest(Path(weights))
    with pytest.raises(UserError, match=r"1 wrong shapes: body.weight"):
        TimmNetwork((3, 8, 8), 5, "net", weights, digest)


def test_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        UserError, match=r"needs the package 'timm': pip install ensemble-kd\[timm]"
    ):
        TimmNetwork((1, 8, 8), 5, "net")

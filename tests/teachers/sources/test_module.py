"""A network of the user's own class."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.networks import Mlp
from ensemble_kd.teachers.sources import Module, Told

Refusal = Callable[[Callable[[], object]], str]
TOLD = Told((4,), ("a", "b"))

OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.head = nn.Linear(4, width)
    def forward(self, x):
        return self.head(x)
def make(width):
    return nn.Sequential(nn.Linear(4, width))
def nothing(width):
    return width
class Around(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.head, self.part = nn.Linear(4, 2), part
    def forward(self, x):
        return self.part(self.head(x))
"""

PARTS = """
from torch import nn
class Twice(nn.Module):
    def forward(self, x):
        return 2 * x
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's, importable."""
    (tmp_path / "own_teachers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_teachers"
    sys.modules.pop("own_teachers", None)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    torch.save({"head.weight": torch.randn(2, 4), "head.bias": torch.randn(2)}, tmp_path / "w.pt")
    return str(tmp_path / "w.pt")


def test_a_class_or_a_function_of_a_package_that_is_allowed(package: str, weights: str) -> None:
    told = replace(TOLD, allow=(package,))
    source = Module(f"{package}.Net", weights, {"width": 2})
    held = torch.load(weights, weights_only=True)
    inputs = torch.randn(3, 4)
    said = source.load(told).network(inputs)
    torch.testing.assert_close(said, inputs @ held["head.weight"].T + held["head.bias"])
    torch.save({f"0.{k.split('.')[1]}": v for k, v in held.items()}, weights)
    by_function = Module(f"{package}.make", weights, {"width": 2}).load(told)
    assert torch.equal(by_function.network(inputs), said)


def test_code_and_arguments_are_in_the_digest(package: str, weights: str, tmp_path: Path) -> None:
    from ensemble_kd.fingerprint import code_digest

    told = replace(TOLD, allow=(package,))
    source = Module(f"{package}.Net", weights, {"width": 2})
    first = source.load(told).digest
    assert source.load(told).digest == first
    (tmp_path / "own_teachers.py").write_text(OWN + "# another line\n")
    code_digest.cache_clear()
    assert source.load(told).digest != first


def test_objects_among_the_arguments_are_in_the_digest(
    package: str, weights: str, tmp_path: Path
) -> None:
    from ensemble_kd.build import build
    from ensemble_kd.fingerprint import code_digest

    allow = (package, "own_parts")
    node = {
        "_target_": "ensemble_kd.teachers.sources.Module",
        "path": f"{package}.Around",
        "weights": weights,
        "arguments": {"part": {"_target_": "own_parts.Twice"}},
    }

    def digest(times: int) -> str:
        (tmp_path / "own_parts.py").write_text(PARTS.replace("2", str(times)))
        sys.modules.pop("own_parts", None)
        code_digest.cache_clear()
        loaded = build(node, "teacher", allow).load(replace(TOLD, allow=allow))
        return str(loaded.digest)

    assert digest(2) == digest(2)
    assert digest(2) != digest(3)


def test_what_is_refused(
    package: str, weights: str, tmp_path: Path, refusal: Refusal, monkeypatch: Any
) -> None:
    told = replace(TOLD, allow=(package,))

    def line(path: str, told: Told = told, file: str = weights, **arguments: Any) -> str:
        return refusal(lambda: Module(path, file, arguments or {"width": 2}).load(told))

    assert "allow=[package] adds a package" in line(f"{package}.Net", TOLD)
    assert "os.system" in line("os.system", told, command="true")
    assert "expected a network, got int" in line(f"{package}.nothing")
    assert "takes no such argument" in line(f"{package}.Net", depth=2)
    wrong = line(f"{package}.Net", width=3)
    assert "2 wrong shapes: head.bias (2,) in place of (3,)" in wrong
    (tmp_path / "net.pkl").write_bytes(b"\x80\x04.")
    assert "got a pickle" in line(f"{package}.Net", file=str(tmp_path / "net.pkl"))


def test_a_lightning_checkpoint_by_key_and_prefix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Mlp([4], 2, hidden=[3]).eval()
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    held = {"epoch": 3, "state_dict": {**state, "loss.weight": torch.ones(2)}}
    torch.save(held, tmp_path / "last.ckpt")
    arguments = {"inputs": [4], "classes": 2, "hidden": [3]}
    path = "ensemble_kd.networks.Mlp"
    source = Module(path, str(tmp_path / "last.ckpt"), arguments, "state_dict", "model.")
    inputs = torch.randn(5, 4)
    assert torch.equal(source.load(TOLD).network(inputs), network(inputs))


def test_a_torch_class_needs_no_permission(tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pt")
    arguments = {"in_features": 4, "out_features": 2}
    assert Module("torch.nn.Linear", str(tmp_path / "w.pt"), arguments).load(TOLD).digest

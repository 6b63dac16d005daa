"""A canary: a folder that is made as soon as anything of a hostile file is carried out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Mlp

NETWORK = {"_target_": "ensemble_kd.networks.Mlp", "inputs": [4], "classes": 3, "hidden": [5]}


class Charge:
    """What a pickle of it carries out when it is read.

    Args:
        canary: the folder that is made.
    """

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Must not be there when the test is over."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.fixture
def charge(canary: Path) -> Charge:
    """Makes the canary when it is unpickled."""
    return Charge(canary)


@pytest.fixture
def refused() -> Callable[[Callable[[], Any]], str]:
    """Calls something that must end in one clear line; the line."""

    def call(work: Callable[[], Any]) -> str:
        with pytest.raises(UserError) as refusal:
            work()
        said = str(refusal.value)
        assert said.isprintable()
        assert len(said) < 1000
        return said

    return call


@pytest.fixture
def artefact(own_folder: Path) -> Path:
    """A folder with a trained network, as a run leaves it."""
    folder = own_folder / "student"
    folder.mkdir()
    torch.manual_seed(0)
    network: nn.Module = Mlp([4], 3, [5])
    write_artefact(folder, network, NETWORK, {"digest": "0" * 64})
    return folder

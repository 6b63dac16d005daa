"""A small record and what it should hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ensemble_kd.cache import Float32, Format, Shelf

KEY = "0123456789abcdef" * 4
INDEX = torch.tensor([0, 1, 3, 4, 7, 8, 9, 12, 13, 20, 21])
VIEWS = 3
CLASSES = 5


def outputs(view: int, start: int, stop: int, classes: int = CLASSES) -> Tensor:
    """Logits that say which sample and view they are of."""
    numbers = INDEX[start:stop, None].float()
    return torch.cos(numbers * 7 + view * 3 + torch.arange(classes)) * 4


@pytest.fixture
def key() -> str:
    return KEY


@pytest.fixture
def said() -> Tensor:
    """(views, n, c): what ``fill`` has written."""
    return torch.stack([outputs(view, 0, len(INDEX)) for view in range(VIEWS)])


@pytest.fixture
def index() -> Tensor:
    return INDEX


@pytest.fixture
def fill() -> Callable[..., Path]:
    """Writes a record; returns its folder."""

    def write(
        root: Path, form: Format | None = None, shard_bytes: int = 2**20, key: str = KEY
    ) -> Path:
        form = form or Float32()
        shelf = Shelf(root, shard_bytes)
        with shelf.locked(key):
            writer = shelf.writing(key, {"teacher": "t"}, INDEX, VIEWS, (CLASSES,), form)
            for view, start, stop in writer.missing(4):
                rows, views = INDEX[start:stop], torch.full((stop - start,), view)
                writer.write(view, start, form.encode(outputs(view, start, stop), rows, views))
            writer.finish()
        return shelf.folder(key)

    return write

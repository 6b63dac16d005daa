"""What everybody said of a split, in a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ensemble_kd.errors import UserError
from ensemble_kd.predictions import Predictions, by_sample, read_predictions, write_predictions
from ensemble_kd.types import NEVER


def some() -> Predictions:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    logits[0, 1] = NEVER
    return Predictions(
        ("a/b", "ü", "<b>"),
        torch.tensor([4, 2, 9, 1, 0]),
        torch.tensor([0, -100, 2, 1, 1]),
        {"teacher/10": logits, "student": 2 * logits.T.contiguous().T, "control/x/0": logits[:]},
    )


def test_reads_what_was_written(tmp_path: Path) -> None:
    said = some()
    write_predictions(said, tmp_path / "new" / "test.safetensors")
    read = read_predictions(tmp_path / "new" / "test.safetensors")
    assert read.names == said.names
    assert torch.equal(read.index, said.index)
    assert torch.equal(read.target, said.target)
    assert list(read.logits) == list(said.logits)
    assert all(torch.equal(read.logits[name], said.logits[name]) for name in said.logits)
    assert read.nbytes == 3 * 5 * 3 * 4


def test_the_same_predictions_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_predictions(some(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"no tensors", "cut", "foreign", "other"])
def test_something_else_is_one_clear_line(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "test.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        write_predictions(some(), path)
        path.write_bytes(path.read_bytes()[:-7])
    elif content is not None:
        said = {"names": ["a"], "predictors": ["student"]}
        told = {"ensemble_kd": json.dumps(said)} if content == "other" else None
        save_file({"index": torch.zeros(2), "target": torch.zeros(2)}, path, told)
    message = "cannot read" if content is None else "expected the predictions of a run"
    with pytest.raises(UserError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"names": ("a", "b")},
        {"index": torch.tensor([4, 2, 9])},
        {"target": torch.tensor([0, 3, 2, 1, 1])},
        {"target": torch.tensor([0, -1, 2, 1, 1])},
        {"target": torch.zeros(5)},
        {"logits": {"student": torch.zeros(4, 3)}},
    ],
)
def test_parts_that_do_not_fit_each_other_are_one_clear_line(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "test.safetensors"
    write_predictions(replace(some(), **change), path)
    with pytest.raises(UserError, match="expected the predictions of a run"):
        read_predictions(path)


def test_places_become_rows_of_their_samples() -> None:
    values, index = torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([7, 7, 3, 9, 9, 9])
    assert by_sample(values, index, -1).tolist() == [[1, 2, -1], [3, -1, -1], [4, 5, 6]]

from __future__ import annotations

from typing import Any

import pytest
import torch

from ensemble_kd.data import as_batch
from ensemble_kd.errors import UserError
from ensemble_kd.types import Batch

X, Y = torch.zeros(3, 2), torch.tensor([0, 1, 1])


@pytest.mark.parametrize("said", [(X, Y), [X, Y], {"x": X, "y": Y}, {"image": X, "labels": Y}])
def test_pairs_and_mappings(said: Any) -> None:
    batch = as_batch(said, start_index=10)
    assert batch.inputs is X
    assert batch.target.tolist() == [0, 1, 1]
    assert batch.index.tolist() == [10, 11, 12]
    assert batch.mask is None


def test_several_inputs_stay_a_mapping() -> None:
    batch = as_batch({"input_ids": X, "attention_mask": X, "labels": Y.int()})
    assert set(batch.inputs) == {"input_ids", "attention_mask"}
    assert batch.target.dtype == torch.int64


def test_index_and_mask_are_taken_over() -> None:
    mask = torch.tensor([True, False, True])
    batch = as_batch({"x": X, "target": Y, "index": torch.tensor([7, 5, 6]), "mask": mask})
    assert batch.index.tolist() == [7, 5, 6]
    assert batch.mask is mask
    assert as_batch(batch) is batch


def test_missing_labels_make_a_mask() -> None:
    batch = as_batch((X, torch.tensor([0, -100, 1])))
    assert batch.mask is not None
    assert batch.mask.tolist() == [True, False, True]
    tokens = as_batch((X, torch.tensor([[0, -100], [1, 1], [-100, -100]])))
    assert tokens.mask is not None
    assert tokens.mask.tolist() == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (X, "must yield .*got Tensor"),
        ((X, Y, Y), "got tuple of 3"),
        ({"x": X}, "must have one of the keys target, targets, label, labels, y, got x"),
        ({}, "got no key"),
        ({"y": Y, "label": Y, "x": X}, "must have one of the keys"),
        ({"y": Y}, "must hold inputs beside 'y', got nothing else"),
        ((X, Y.float()), "tensor of class numbers .*got a tensor torch.float32"),
        ((X, 3), "got int"),
        ((X, Y[0]), "got a tensor torch.int64"),
    ],
)
def test_what_cannot_be_read(said: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        as_batch(said)
    assert "\n" not in str(raised.value)


def test_a_batch_is_a_batch() -> None:
    assert isinstance(as_batch((X, Y)), Batch)

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ensemble_kd.networks.multi_head import Tasked
from ensemble_kd.strategies.samples import chosen
from ensemble_kd.types import Batch, Output

ROWS = [
    (torch.tensor([4, 0]), [4, 0]),
    (torch.tensor([True, False, False, True, False]), [0, 3]),
    (torch.zeros(5, dtype=torch.bool), []),
]


@pytest.mark.parametrize(("rows", "numbers"), ROWS)
def test_every_part_of_a_batch_is_chosen_from(rows: Tensor, numbers: list[int]) -> None:
    inputs = torch.arange(10).view(5, 2)
    target, mask = torch.arange(5) + 20, torch.tensor([True, False, True, False, True])
    batch = Batch({"x": inputs}, target, torch.arange(5) + 30, mask, (Tasked(inputs, target),))
    some = chosen(batch, rows)
    assert some.inputs["x"].tolist() == inputs[numbers].tolist()
    assert some.target.tolist() == target[numbers].tolist()
    assert some.index.tolist() == [number + 30 for number in numbers]
    assert some.mask is not None
    assert some.mask.tolist() == mask[numbers].tolist()
    assert isinstance(some.views[0], Tasked)
    assert some.views[0].task.tolist() == target[numbers].tolist()


@pytest.mark.parametrize(("rows", "numbers"), ROWS)
def test_and_of_what_was_said(rows: Tensor, numbers: list[int]) -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    some = chosen(Output(logits, {"pool": 2 * logits}), rows)
    assert torch.equal(some.logits, logits[numbers])
    assert torch.equal(some.features["pool"], 2 * logits[numbers])
    assert some.logits.requires_grad


def test_a_batch_whose_samples_all_have_labels_keeps_no_mask() -> None:
    batch = Batch(torch.zeros(3, 2), torch.arange(3), torch.arange(3))
    assert chosen(batch, torch.tensor([1])).mask is None

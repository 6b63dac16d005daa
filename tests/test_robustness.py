"""What becomes of the accuracy when samples get worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.corruptions import Blur, Contrast, Corruption, Noise, TokenDrop
from ensemble_kd.robustness import Robustness
from ensemble_kd.teachers import Mixture, Numbered
from ensemble_kd.types import Batch, Output

ALL: dict[str, Corruption] = {
    "noise": Noise(),
    "blur": Blur(),
    "contrast": Contrast(),
    "token_drop": TokenDrop(),
}


class Bright(nn.Module):
    """Names class 1 where the first value is above a half."""

    def forward(self, inputs: Tensor) -> Tensor:
        first = inputs.flatten(1)[:, 0]
        return torch.stack([0.5 - first, first - 0.5], dim=1)


class Recorded(Numbered):
    def of(self, index: Tensor) -> Output:
        return Output(torch.zeros(len(index), 2))


class Darker(Corruption):
    """Takes a tenth away for each grade."""

    def suits(self, inputs: Any) -> bool:
        return True

    def __call__(self, inputs: Any, index: Tensor, severity: int) -> Any:
        return inputs - 0.1 * severity


def batches(sizes: Sequence[int] = (4, 4, 3), labelled: bool = True) -> list[Batch]:
    """Tables whose first column runs from 0 to 1."""
    inputs = torch.stack([torch.linspace(0, 1, 11), torch.zeros(11)], dim=1)
    target = (inputs[:, 0] > 0.45).long()  # the sixth is 0.5
    mask = torch.ones(11, dtype=torch.bool) if labelled else torch.zeros(11, dtype=torch.bool)
    parts = zip(*(each.split(list(sizes)) for each in (inputs, target, mask)), strict=True)
    numbers = torch.arange(11).split(list(sizes))
    return [Batch(x, y, n, m) for (x, y, m), n in zip(parts, numbers, strict=True)]


def test_accuracies_are_those_on_spoilt_samples() -> None:
    measured = Robustness({"darker": Darker()}, [1, 4]).measure({"it": Bright()}, batches(), 2)
    # Of the six that are bright, those between 0.5 and 0.5 + 0.1 * severity are taken for dark.
    assert [each[:3] for each in measured] == [("darker", 1, 11), ("darker", 4, 11)]
    assert measured[0].accuracy["it"] == pytest.approx(9 / 11)
    assert measured[1].accuracy["it"] == pytest.approx(6 / 11)


@pytest.mark.parametrize("samples", [1, 4, 6, 11, 50])
def test_only_the_first_samples_are_measured(samples: int) -> None:
    (found,) = Robustness({"darker": Darker()}, [1], samples).measure(
        {"it": Bright()}, batches(), 2
    )
    assert found.n == min(samples, 11)
    inputs, target, index, mask = batches([11])[0][:4]
    assert mask is not None
    whole = [Batch(inputs[:samples], target[:samples], index[:samples], mask[:samples])]
    (alone,) = Robustness({"darker": Darker()}, [1]).measure({"it": Bright()}, whole, 2)
    assert found == alone


def test_those_who_know_answers_by_numbers_are_left_out() -> None:
    looking, recorded = Bright(), Recorded()
    both = Mixture([looking, recorded])
    predictors = {"teacher/0": recorded, "teacher/1": looking, "ensemble": both}
    (found,) = Robustness({"darker": Darker()}, [1]).measure(predictors, batches(), 2)
    assert set(found.accuracy) == {"teacher/1"}
    assert Robustness({"darker": Darker()}, [1]).measure({"it": recorded}, batches(), 2) == []


def test_what_does_not_suit_the_data_is_left_out() -> None:
    found = Robustness(ALL, [2]).measure({"it": Bright()}, batches(), 2)
    assert [each.corruption for each in found] == ["noise"]
    pictures = [
        b._replace(inputs=b.inputs[:, :, None, None].expand(-1, -1, 4, 4)) for b in batches()
    ]
    found = Robustness(ALL, [2]).measure({"it": Bright()}, pictures, 2)
    assert [each.corruption for each in found] == ["noise", "blur", "contrast"]


class Summing(nn.Module):
    """Names class 1 where ids sum to something odd."""

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        odd = inputs["ids"].sum(1) % 2
        return torch.stack([1 - odd, odd], dim=1).float()


def test_texts_that_are_padded_batch_by_batch_suit_no_corruption() -> None:
    served = [
        b._replace(inputs={"ids": torch.ones(len(b.index), 3 + number, dtype=torch.int64)})
        for number, b in enumerate(batches())
    ]
    assert Robustness(ALL).measure({"it": Summing()}, served, 2) == []


def test_nothing_is_said_of_tags_or_without_labels() -> None:
    tagged = [b._replace(places=torch.ones_like(b.target, dtype=torch.bool)) for b in batches()]
    for served in (tagged, batches(labelled=False)):
        assert Robustness({"darker": Darker()}).measure({"it": Bright()}, served, 2) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"severities": [0]}, "severities must be of 1 to 5, got 0"),
        ({"samples": 0}, "samples must"),
    ],
)
def test_refuses_what_is_none(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Robustness(ALL, **settings)

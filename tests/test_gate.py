"""The gate before any training, against a permutation of the same predictions."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.gate import TOO_FEW, check_teachers
from ensemble_kd.teachers import LabelSpace, Numbered, Translated, covered
from ensemble_kd.types import UNLABELLED, Batch, Output


class Saying(nn.Module):
    """Gives the logits that belong to the number of each sample."""

    def __init__(self, answers: Tensor, classes: int) -> None:
        super().__init__()
        self.logits = nn.functional.one_hot(answers, classes).float()
        self.modes: list[bool] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.modes.append(self.training)
        return self.logits[inputs[:, 0].long()]


class Recorded(Numbered):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def of(self, index: Tensor) -> Output:
        return Output(self.logits[index])


def batches(target: Tensor, mask: Tensor | None = None, size: int = 64) -> list[Batch]:
    numbers = torch.arange(len(target))
    return [
        Batch(rows[:, None].float(), target[rows], rows, None if mask is None else mask[rows])
        for rows in numbers.split(size)
    ]


def labels(count: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def test_a_teacher_that_knows_something_passes_and_is_left_as_it_was() -> None:
    target = labels(300, 10)
    often_wrong = torch.where(torch.rand(300) < 0.7, labels(300, 10, seed=1), target)
    teacher = Saying(often_wrong, 10).train()

    check_teachers({"teacher/0": teacher}, batches(target))

    assert teacher.training
    assert not any(teacher.modes)


@pytest.mark.parametrize("classes", [2, 10])
def test_one_at_chance_is_refused_in_one_line(classes: int) -> None:
    target = labels(300, classes)
    good, guessing = Saying(target, classes), Saying(labels(300, classes, seed=5), classes)
    right = float((labels(300, classes, seed=5) == target).double().mean())

    with pytest.raises(UserError) as refusal:
        check_teachers({"teacher/0": good, "teacher/1": guessing}, batches(target))

    said = str(refusal.value)
    assert said.startswith("teacher/1: no better than chance on 300 validation labels: it gets ")
    assert f"it gets {right:.1%} right" in said
    assert "teacher.gate=false" in said
    assert "\n" not in said


def test_another_order_of_the_classes_is_chance_or_worse() -> None:
    target = labels(300, 4)
    with pytest.raises(UserError, match=re.escape("it gets 0.0% right, by chance 2")):
        check_teachers({"teacher/0": Saying((target + 1) % 4, 4)}, batches(target))


def test_always_the_most_frequent_class_is_no_knowledge() -> None:
    target = torch.where(torch.arange(400) % 10 == 0, 1, 0)
    with pytest.raises(UserError, match=re.escape("90.0% right, by chance 90.0%")):
        check_teachers({"teacher/0": Saying(torch.zeros(400).long(), 2)}, batches(target))


def test_only_labels_count_and_few_say_nothing() -> None:
    target = labels(300, 3)
    wrong = Saying((target + 1) % 3, 3)
    mask = torch.arange(300) < TOO_FEW - 1
    hidden = torch.where(mask, target, UNLABELLED)
    check_teachers({"teacher/0": wrong}, batches(hidden, mask))

    mask = torch.arange(300) < TOO_FEW
    hidden = torch.where(mask, target, UNLABELLED)
    with pytest.raises(UserError, match=f"on {TOO_FEW} validation labels"):
        check_teachers({"teacher/0": wrong}, batches(hidden, mask))


@pytest.mark.parametrize("right", [True, False])
def test_a_teacher_of_some_or_coarser_classes_is_asked_about_these(right: bool) -> None:
    target = labels(400, 4)
    # Of classes 0 and 1 together, 2, and nobody's; class 3 it does not know.
    entries = covered([["a", "b"], "c", None], ["a", "b", "c", "d"])
    own = torch.tensor([0, 0, 1, 2])[target]
    teacher = Saying(own if right else labels(400, 2, seed=3), 3)
    seen = Translated(teacher, LabelSpace(entries, 4))
    if right:
        check_teachers({"teacher/0": seen}, batches(target))
        return
    with pytest.raises(UserError, match=f"on {int((target < 3).sum())} validation labels"):
        check_teachers({"teacher/0": seen}, batches(target))


def test_one_that_answers_by_number_is_asked_by_number() -> None:
    target = labels(100, 3)
    good = Recorded(nn.functional.one_hot(target, 3).float())
    check_teachers({"teacher/0": good}, batches(target))
    with pytest.raises(UserError, match="no better than chance"):
        check_teachers({"teacher/0": Recorded(good.logits.roll(1, dims=-1))}, batches(target))


def test_texts_with_a_class_for_each_token() -> None:
    target = labels(200, 3).view(50, 4)
    mask = torch.ones(50, 4, dtype=torch.bool)
    mask[:, 2:] = False
    logits = nn.functional.one_hot(target, 3).float()
    logits[:, 2:] = -logits[:, 2:]  # what is said at padding is nothing
    batch = Batch(None, target.where(mask, UNLABELLED), torch.arange(50), mask)
    check_teachers({"teacher/0": Recorded(logits)}, [batch])
    with pytest.raises(UserError, match="on 100 validation labels"):
        check_teachers({"teacher/0": Recorded(-logits)}, [batch])


def test_a_split_that_is_sorted_is_read_until_a_second_class_comes() -> None:
    target = torch.arange(3).repeat_interleave(800)
    check_teachers({"teacher/0": Saying(target, 3)}, batches(target))
    with pytest.raises(UserError, match="no better than chance on 832 validation labels"):
        check_teachers({"teacher/0": Saying((target + 1) % 3, 3)}, batches(target))


def test_of_a_single_class_nothing_is_said() -> None:
    target = torch.zeros(100).long()
    check_teachers({"teacher/0": Saying(target + 1, 2)}, batches(target))

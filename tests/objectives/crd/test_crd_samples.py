"""The memory of an objective that contrasts samples: which there are, and how it moves."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Crd
from ensemble_kd.types import UNLABELLED, Batch, Progress


def at(step: int) -> Progress:
    return Progress(step, 0, 0.0)


def uniform(m: int, b: int) -> Tensor:
    return torch.full((m, b), 1 / m, dtype=torch.float64)


def embedded(linear: nn.Linear, feature: Tensor) -> list[float]:
    """The vector of one sample, of unit length."""
    values = [
        sum(w * float(x) for w, x in zip(row, feature.detach(), strict=True)) + bias
        for row, bias in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    ]
    length = math.sqrt(sum(value**2 for value in values))
    return [value / length for value in values]


def test_memory_moves_after_the_step_and_not_in_the_loss(data: Any) -> None:
    crd = data.made(momentum=0.25)
    before = crd.memory.vectors.clone()
    assert torch.allclose(before.norm(dim=2), torch.ones(4, 8, dtype=torch.float64))
    rows = [4, 0, 3]
    student, taught = data.voices(rows)
    first = crd(student, taught, uniform(2, 3), data.some(rows), at(0))
    assert torch.equal(crd(student, taught, uniform(2, 3), data.some(rows), at(0)), first)
    assert torch.equal(crd.memory.vectors, before)
    crd.settle()
    features = [student.features["a"], taught[0].features["a"]]
    heads: Any = crd.heads[0]
    for i, number in enumerate(data.numbers[rows].tolist()):
        row = crd.memory.numbers.tolist().index(number)
        for bank, linear in enumerate((heads.student, heads.teacher)):
            fresh = embedded(linear, features[bank][i])
            mixed = [
                0.25 * float(a) + 0.75 * b for a, b in zip(before[bank, row], fresh, strict=True)
            ]
            length = math.sqrt(sum(value**2 for value in mixed))
            moved = crd.memory.vectors[bank, row].tolist()
            assert moved == pytest.approx([value / length for value in mixed])
    left = [i for i, n in enumerate(crd.memory.numbers.tolist()) if n not in data.numbers[rows]]
    assert torch.equal(crd.memory.vectors[:, left], before[:, left])
    again = crd.memory.vectors.clone()
    crd.settle()  # without a batch in between
    assert torch.equal(crd.memory.vectors, again)
    crd.eval()
    crd(student, taught, uniform(2, 3), data.some(rows), at(1))
    crd.settle()
    assert torch.equal(crd.memory.vectors, again)


def test_negatives_are_drawn_anew_in_each_step_and_do_not_depend_on_the_batch(data: Any) -> None:
    crd = data.made(negatives=2)
    crd(*data.voices(range(8)), uniform(2, 8), data.some(range(8)), at(0))
    crd.settle()
    whole = crd(*data.voices(range(8)), uniform(2, 8), data.some(range(8)), at(5))
    halves = [
        crd(*data.voices(rows), uniform(2, 4), data.some(rows), at(5))
        for rows in ([3, 1, 7, 0], [2, 4, 5, 6])
    ]
    order = [3, 1, 7, 0, 2, 4, 5, 6]
    assert torch.cat(halves).tolist() == pytest.approx(whole[order].tolist())
    other = crd(*data.voices(range(8)), uniform(2, 8), data.some(range(8)), at(6))
    assert not torch.allclose(other, whole)


def test_a_sample_that_the_pass_left_out_counts_from_its_second_visit_on(data: Any) -> None:
    torch.manual_seed(0)
    crd = Crd(["a"], ["a"], size=3)
    crd.meet(*data.voices(range(8)))
    crd.double()
    crd.study(data.material(data.some([0, 1, 2, 3, 4, 5])))
    rows = [*range(8), 7]  # the last twice, by two augmentations
    student, taught = data.voices(rows)
    student.features["a"][8] *= -0.5
    values = crd(student, taught, uniform(2, 9), data.some(rows), at(0))
    assert (values[:6] > 0).all()
    assert values[6:].tolist() == [0.0, 0.0, 0.0]
    crd.settle()
    lengths = crd.memory.vectors.norm(dim=2)
    assert torch.allclose(lengths, torch.ones_like(lengths))
    assert crd.memory.numbers.tolist() == sorted(data.numbers.tolist())
    places, _ = crd.memory.find(data.numbers)
    assert crd.memory.labels[places].tolist() == data.labels.tolist()
    values = crd(*data.voices(range(8)), uniform(2, 8), data.some(range(8)), at(1))
    assert (values > 0).all()


def test_a_sample_that_comes_twice_moves_once_to_the_mean(data: Any) -> None:
    crd = data.made()
    rows = [4, 0, 4]
    student, taught = data.voices(rows)
    student.features["a"][2] *= -1
    crd(student, taught, uniform(2, 3), data.some(rows), at(0))
    before = crd.memory.vectors.clone()
    crd.settle()
    row = crd.memory.numbers.tolist().index(int(data.numbers[4]))
    heads: Any = crd.heads[0]
    fresh = [embedded(heads.student, student.features["a"][i]) for i in (0, 2)]
    mixed = [
        0.5 * float(o) + 0.25 * (a + b) for o, a, b in zip(before[0, row], *fresh, strict=True)
    ]
    length = math.sqrt(sum(value**2 for value in mixed))
    assert crd.memory.vectors[0, row].tolist() == pytest.approx([v / length for v in mixed])


def test_a_resumed_training_continues_as_it_would_have(data: Any) -> None:
    def trained(crd: Crd, steps: range) -> list[list[float]]:
        seen = []
        for step in steps:
            rows = [step % 8, (3 * step + 1) % 8, (5 * step + 2) % 8]
            values = crd(*data.voices(rows, seed=step), uniform(2, 3), data.some(rows), at(step))
            crd.settle()
            seen.append(values.tolist())
        return seen

    straight = data.made(negatives=2)
    expected = trained(straight, range(6))
    first = data.made(negatives=2)
    trained(first, range(3))
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(0)
    fresh = Crd(["a"], ["a"], size=3, negatives=2)
    fresh.meet(*data.voices(range(8)))
    fresh.double()
    fresh.load_state_dict(state)  # what was studied is part of it
    assert trained(fresh, range(3, 6)) == expected[3:]


def batch_of(labels: list[Any], numbers: list[int]) -> Batch:
    return Batch(None, torch.tensor(labels), torch.tensor(numbers))


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        (
            [batch_of([0, 1, 2], [30, 2, 17]), batch_of([2], [30])],
            "crd: sample 30 has one label now and had another before",
        ),
        ([batch_of([1, 1], [3, 4])], "samples of several classes .* got class 1 alone"),
        ([batch_of([1, UNLABELLED], [3, 4])], "samples of several classes .* got class 1 alone"),
        (
            [batch_of([[0, 1, 2, 0], [0, 0, 0, 0]], [0, 1])],
            r"one label for each sample, got targets of shape \(2, 4\)",
        ),
    ],
)
def test_data_that_cannot_be_contrasted(data: Any, batches: list[Batch], words: str) -> None:
    crd = Crd(["a"], ["a"])
    crd.meet(*data.voices(range(8)))
    with pytest.raises(UserError, match=words) as refusal:
        crd.study(data.material(*batches))
    assert "\n" not in str(refusal.value)


def test_few_samples_of_one_class_are_enough_for_a_rehearsal(data: Any) -> None:
    crd = Crd(["a"], ["a"], size=3)
    crd.meet(*data.voices([1, 2]))
    crd.double()
    crd.study(data.material(data.some([1, 2]), whole=False))
    values = crd(*data.voices([1, 2]), uniform(2, 2), data.some([1, 2]), at(0))
    assert values.tolist() == [0.0, 0.0]
    values.sum().backward()
    crd.settle()
    assert not crd.begun


def test_data_without_any_label_is_told_apart_sample_by_sample(data: Any) -> None:
    crd = Crd(["a"], ["a"], size=3)
    crd.meet(*data.voices(range(8)))
    crd.double()
    unlabelled = Batch(None, torch.full((8,), UNLABELLED), data.numbers)
    crd.study(data.material(unlabelled))
    assert (crd(*data.voices(range(8)), uniform(2, 8), unlabelled, at(0)) > 0).all()


def test_numbers_that_are_not_stable_are_found_out(data: Any) -> None:
    crd = data.made()
    shifted = Batch(None, data.labels, data.numbers.roll(1))
    with pytest.raises(UserError, match=r"sample \d+ has one label now and had another") as refusal:
        crd(*data.voices(range(8)), uniform(2, 8), shifted, at(0))
    assert "\n" not in str(refusal.value)
    for step in range(2):
        shifted = Batch(None, data.labels, 1000 + 8 * step + torch.arange(8))
        crd(*data.voices(range(8)), uniform(2, 8), shifted, at(step))
        if step == 0:
            crd.settle()
    with pytest.raises(UserError, match="met 8 in the first pass and as many others since"):
        crd.settle()


def test_batches_of_one_step_enter_the_memory_like_one(data: Any) -> None:
    whole = data.made(momentum=0.25)
    parts = copy.deepcopy(whole)
    rows = [4, 0, 3, 6, 1]
    for crd, batches in ((whole, [rows]), (parts, [rows[:2], rows[2:]])):
        for own in batches:
            crd(*data.voices(own), uniform(2, len(own)), data.some(own), at(0))
        crd.settle()
    assert torch.allclose(parts.memory.vectors, whole.memory.vectors)
    assert torch.allclose(parts.log_z, whole.log_z)
    before = parts.memory.vectors.clone()
    parts.settle()
    assert torch.equal(parts.memory.vectors, before)

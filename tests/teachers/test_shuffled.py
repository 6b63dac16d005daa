"""Teachers whose answers are given to other samples of the same class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.teachers import Frozen, LabelSpace, Shuffled
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

CLASSES = 4
SAMPLES = 41
ALONE = 7  # the only sample of the last class


class Speaker(nn.Module):
    """Says of a sample which one it is, and ranks first the class that the inputs hold.

    Args:
        sure: the first logit of whoever it ranks first.
        outputs: how many classes it knows.
    """

    def __init__(self, sure: float = 2.0, outputs: int = CLASSES) -> None:
        super().__init__()
        self.sure = sure
        self.outputs = outputs
        self.passed = nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        number, wanted = inputs[:, 0], inputs[:, 1].long()
        self.passed(10 * number)
        hot = nn.functional.one_hot(wanted.clamp(max=self.outputs - 1), self.outputs)
        # The number is in the logits, where it changes no order.
        return self.sure * hot + number.unsqueeze(1)


def own_number(said: Output) -> list[int]:
    """Of which samples the answers are."""
    return said.logits.min(dim=-1).values.round().int().tolist()


def labels() -> Tensor:
    """Of all samples; those with an odd number have none, which the networks rank as here."""
    drawn = torch.randint(CLASSES - 1, (SAMPLES,), generator=torch.Generator().manual_seed(0))
    drawn[ALONE] = CLASSES - 1
    return drawn


def served(numbers: Sequence[int], unlabelled: bool = True) -> Batch:
    index = torch.tensor(numbers)
    classes = labels()[index]
    mask = index % 2 == 0 if unlabelled else torch.ones_like(index, dtype=torch.bool)
    # Numbers of samples that lie apart, as those of a split do.
    return Batch(
        torch.stack([index, classes], dim=1).double(),
        classes.where(mask, UNLABELLED),
        5 * index,
        mask if unlabelled else None,
    )


def batches(unlabelled: bool = True) -> Iterator[Batch]:
    numbers = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1)).tolist()
    return (served(numbers[start : start + 6], unlabelled) for start in range(0, SAMPLES, 6))


def studied(
    *networks: nn.Module, seed: int = 3, unlabelled: bool = True, taps: Sequence[str] = ()
) -> Shuffled:
    ensemble = Shuffled([Frozen(each, taps) for each in networks], [[] for _ in networks], seed)
    ensemble.study(lambda: batches(unlabelled))
    return ensemble


def at(epoch: int) -> Progress:
    return Progress(10 * epoch, epoch, epoch / 20)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_each_gets_the_answer_of_another_sample_of_the_class(unlabelled: bool) -> None:
    ensemble = studied(Speaker(), unlabelled=unlabelled)
    classes = labels().tolist()
    seen: dict[int, set[int]] = {number: set() for number in range(SAMPLES)}
    for epoch in range(20):
        given = []
        for batch in batches(unlabelled):
            (said,) = ensemble(batch, at(epoch))
            for number, other in zip((batch.index // 5).tolist(), own_number(said), strict=True):
                assert classes[other] == classes[number]
                assert (other == number) == (number == ALONE)
                seen[number].add(other)
                given.append(other)
        # Every answer is given once: how answers are distributed stays as it was.
        assert Counter(given) == dict.fromkeys(range(SAMPLES), 1)
    del seen[ALONE]
    assert all(len(others) > 5 for others in seen.values())  # each epoch draws anew


def test_all_teachers_speak_of_the_same_sample_with_logits_and_features() -> None:
    ensemble = studied(Speaker(), Speaker(5.0), taps=["passed"])
    batch = served([4, 9, 12, 31])
    one, other = ensemble(batch, at(2))
    assert own_number(one) == own_number(other) != (batch.index // 5).tolist()
    assert one.features["passed"].tolist() == [10 * number for number in own_number(one)]
    assert other.logits.max(dim=-1).values.tolist() == [5.0 + n for n in own_number(other)]
    assert not one.logits.requires_grad
    assert not one.logits.is_inference()


def test_what_is_given_depends_on_seed_epoch_and_sample_alone() -> None:
    """Not on the batch, on what was asked before, or on who else draws."""
    ensemble, again = studied(Speaker()), studied(Speaker())
    numbers = list(range(SAMPLES))
    whole = own_number(ensemble(served(numbers), at(4))[0])
    for epoch in (0, 7):
        again(served(numbers[:3]), at(epoch))
    torch.manual_seed(9)
    parts = [again(served(numbers[::-1][start : start + 10]), at(4)) for start in range(0, 41, 10)]
    assert [n for (said,) in parts for n in own_number(said)] == whole[::-1]
    assert own_number(ensemble(served(numbers), at(5))[0]) != whole
    assert own_number(studied(Speaker(), seed=4)(served(numbers), at(4))[0]) != whole


class Wrong(Speaker):
    """Ranks another class first."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(torch.stack([inputs[:, 0], (inputs[:, 1] + 1) % CLASSES], dim=1))


@pytest.mark.parametrize(
    "networks",
    [
        (Speaker(9.0), Wrong(0.2), Wrong(0.2)),  # no majority decides
        (Speaker(4.5), Speaker(4.5), Wrong(14.0)),  # nor does the mean of logits or logarithms
    ],
    ids=["one who is sure", "two against one who is surer"],
)
def test_of_samples_without_a_label_the_mean_of_the_probabilities_decides(
    networks: Sequence[nn.Module],
) -> None:
    ensemble = studied(*networks)
    classes = labels().tolist()
    for batch in batches():
        others = own_number(ensemble(batch, at(0))[0])
        numbers = (batch.index // 5).tolist()
        assert [classes[other] for other in others] == [classes[number] for number in numbers]


def test_a_teacher_of_other_classes_is_translated() -> None:
    space = LabelSpace(((0,), (1,), (3,)), CLASSES)
    ensemble = Shuffled([Frozen(Speaker(outputs=3), space=space)], [[]], 0)
    ensemble.study(lambda: batches(unlabelled=False))
    (said,) = ensemble(served([2, 4, 6], unlabelled=False), at(0))
    assert said.groups is not None
    assert said.logits.shape == (3, CLASSES)
    assert (said.logits[:, 2] == -torch.inf).all()


def test_a_sample_that_the_first_pass_left_out_hears_of_its_class_too() -> None:
    left_out = (2, 3)  # with a label and without
    ensemble = Shuffled([Frozen(Speaker())], [[]], 1)
    kept = [number for number in range(SAMPLES) if number not in left_out]
    ensemble.study(lambda: iter([served(kept[:20]), served(kept[20:])]))
    classes = labels().tolist()
    heard = set()
    for epoch in range(10):
        others = own_number(ensemble(served([0, *left_out]), at(epoch))[0])
        assert [classes[n] for n in others] == [classes[n] for n in (0, *left_out)]
        assert not set(others) & set(left_out)
        heard |= set(others[1:])
    assert len(heard) > 4
    without = Shuffled([Frozen(Speaker())], [[]], 1)
    without.study(lambda: iter([served([n for n in kept if n != ALONE])]))
    with pytest.raises(UserError, match="expected samples of class 3 in the first pass"):
        without(served([ALONE], unlabelled=False), at(0))


def test_samples_that_a_pass_serves_twice_count_once() -> None:
    ensemble = Shuffled([Frozen(Speaker())], [[]], 3)
    ensemble.study(lambda: iter([*batches(), *batches()]))
    numbers = list(range(SAMPLES))
    once = studied(Speaker())(served(numbers), at(1))
    assert own_number(ensemble(served(numbers), at(1))[0]) == own_number(once[0])


def test_before_they_have_looked_they_answer_live() -> None:
    ensemble = Shuffled([Frozen(Speaker())], [[]], 0)
    assert own_number(ensemble(served([3, 5]), at(0))[0]) == [3, 5]


def test_numbers_that_run_on_are_refused() -> None:
    """As those of a loader that shuffles and brings no numbers of its own."""
    ensemble = studied(Speaker(), unlabelled=False)
    batch = served(list(range(SAMPLES)), unlabelled=False)
    shifted = batch._replace(index=batch.index.roll(1))
    with pytest.raises(UserError, match="the same sample under a number") as refusal:
        ensemble(shifted, at(0))
    assert "\n" not in str(refusal.value)


def test_tokens_with_classes_are_refused() -> None:
    tokens = Batch(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long), torch.arange(2))
    with pytest.raises(ValueError, match="leave out shuffled_teacher"):
        Shuffled.check(tokens)
    Shuffled.check(served([1, 2]))

"""What teachers are worth: against the definition over all orders, its axioms, the command line."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd import worth as module
from ensemble_kd.coalitions import drawn_coalitions
from ensemble_kd.predictions import Predictions, write_predictions
from ensemble_kd.teachers import Mixture
from ensemble_kd.types import NEVER, UNLABELLED
from ensemble_kd.worth import Worth, worth

Value = Callable[[frozenset[int]], float]


def sample(m: int, n: int, c: int, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """What teachers of unlike skill say of samples whose first class is the most frequent."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(c, (n,), generator=generator)
    target[::4] = 0
    shared = torch.randn(n, c, generator=generator)
    skills = [2 + 2 * k / m for k in range(m)]
    logits = [
        skill * F.one_hot(target, c) + shared + torch.randn(n, c, generator=generator)
        for skill in skills
    ]
    target[1::5] = UNLABELLED
    return logits, target


def accuracy(said: Tensor, target: Tensor) -> float:
    known = target != UNLABELLED
    return float((said.argmax(-1) == target)[known].double().mean())


def chance(target: Tensor) -> float:
    found = [true for true in target.tolist() if true != UNLABELLED]
    return max(found.count(true) for true in found) / len(found)


def value_of(logits: Sequence[Tensor], target: Tensor, empty: float) -> Value:
    """Accuracies of the means of probabilities, in float64."""
    p = [softmax(each.double().numpy(), axis=-1) for each in logits]
    known = target.numpy() != UNLABELLED

    @cache
    def value(members: frozenset[int]) -> float:
        if not members:
            return empty
        said = np.mean([p[k] for k in sorted(members)], axis=0).argmax(-1)
        return float((said == target.numpy())[known].mean())

    return value


def reference_shapley(value: Value, m: int) -> list[float]:
    """The mean over all orders of what a teacher adds to those who came before."""
    gains = np.zeros(m)
    for order in permutations(range(m)):
        for place, teacher in enumerate(order):
            before = frozenset(order[:place])
            gains[teacher] += value(before | {teacher}) - value(before)
    return list(gains / math.factorial(m))


def reference_leave_one_out(value: Value, m: int) -> list[float]:
    everybody = frozenset(range(m))
    return [value(everybody) - value(everybody - {k}) for k in range(m)]


def column(found: list[Worth], name: str) -> list[float]:
    return [getattr(each, name) for each in found]


@pytest.mark.parametrize("m", [1, 2, 3, 5])
@pytest.mark.parametrize(("n", "c"), [(7, 2), (40, 3), (60, 10)])
def test_equals_the_definition(m: int, n: int, c: int) -> None:
    logits, target = sample(m, n, c)
    found = worth(logits, target)
    value = value_of(logits, target, chance(target))
    assert column(found, "shapley") == pytest.approx(reference_shapley(value, m))
    assert column(found, "leave_one_out") == pytest.approx(reference_leave_one_out(value, m))


def test_errors_are_those_of_means_over_samples() -> None:
    logits, target = sample(3, 40, 4)
    known = [row for row in range(40) if target[row] != UNLABELLED]
    each = [
        value_of([said[row : row + 1] for said in logits], target[row : row + 1], chance(target))
        for row in known
    ]
    found = worth(logits, target)
    for name, reference in (
        ("shapley", reference_shapley),
        ("leave_one_out", reference_leave_one_out),
    ):
        alone = np.array([reference(value, 3) for value in each])
        assert column(found, name) == pytest.approx(list(alone.mean(0)))
        errors = alone.std(0, ddof=1) / math.sqrt(len(known))
        assert column(found, f"{name}_error") == pytest.approx(list(errors))


def test_places_of_one_sequence_are_not_independent() -> None:
    logits, target = sample(3, 40, 4)
    index = torch.arange(40)
    alone = worth(logits, target)
    assert worth(logits, target, index) == alone
    # Whoever sees all samples four times knows no more than before.
    times = [each.repeat(4, 1) for each in logits], target.repeat(4), index.repeat(4)
    clustered = worth(*times)
    for one, other in zip(alone, clustered, strict=True):
        assert one == pytest.approx(other)
    unaware = worth(*times[:2])
    assert 0 < unaware[0].shapley_error < 0.6 * alone[0].shapley_error


@pytest.mark.parametrize(("m", "exact"), [(1, 10), (3, 10), (3, 1), (6, 10), (12, 10)])
def test_the_values_sum_to_what_the_reported_ensemble_gains_over_chance(m: int, exact: int) -> None:
    logits, target = sample(m, 50, 5)
    merged = Mixture([nn.Identity() for _ in range(m)]).merge(logits)
    found = worth(logits, target, exact=exact)
    gain = accuracy(merged, target) - chance(target)
    assert gain > 0
    assert sum(column(found, "shapley")) == pytest.approx(gain, abs=1e-12)


def test_ties_of_the_whole_ensemble_are_broken_as_in_the_report() -> None:
    # The second teacher leaves a little more to the first one's class than rounding keeps.
    logits = [torch.tensor([[0.0, 30.0]]), torch.tensor([[29.0, 0.0]])]
    target = torch.tensor([1])
    merged = Mixture([nn.Identity(), nn.Identity()]).merge(logits)
    exactly = np.mean([softmax(each.double().numpy(), -1) for each in logits], axis=0)
    assert int(merged.argmax()) == 0 != exactly.argmax()
    assert sum(column(worth(logits, target), "shapley")) == accuracy(merged, target) - 1


@pytest.mark.parametrize("exact", [10, 1])
def test_teachers_that_can_stand_in_for_each_other_share(exact: int) -> None:
    (weak, strong), target = sample(2, 80, 4)
    first, other, last = worth([strong, weak, strong.clone()], target, exact=exact)
    assert first.leave_one_out == last.leave_one_out
    if exact == 10:
        assert first.shapley == pytest.approx(last.shapley, abs=1e-12)
    assert first.shapley > max(other.shapley, 0.05)
    assert other.leave_one_out != first.leave_one_out


@pytest.mark.parametrize("exact", [10, 1])
def test_a_teacher_that_says_nothing_is_worth_nothing(exact: int) -> None:
    logits, target = sample(3, 80, 4)
    assert chance(target) == float((target == 0).sum() / (target != UNLABELLED).sum())
    silent = worth([*logits, torch.zeros(80, 4)], target, exact=exact)[-1]
    assert (silent.leave_one_out, silent.leave_one_out_error) == (0.0, 0.0)
    assert silent.shapley == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("never", [-math.inf, NEVER])
def test_a_class_is_left_to_the_teachers_that_know_it(never: float) -> None:
    logits, target = sample(3, 60, 4)
    logits[0][:, 3] = never
    logits[1][:, 0] = never
    logits[2][::2, 1] = never

    @cache
    def value(members: frozenset[int]) -> float:
        said = [logits[k] for k in sorted(members)]
        mixture = Mixture([nn.Identity() for _ in said] or [nn.Identity()])
        return accuracy(mixture.merge(said), target) if said else chance(target)

    found = worth(logits, target)
    assert column(found, "shapley") == pytest.approx(reference_shapley(value, 3))
    assert column(found, "leave_one_out") == pytest.approx(reference_leave_one_out(value, 3))
    plain = value_of(logits, target, chance(target))  # where unknown is impossible
    assert reference_shapley(value, 3) != pytest.approx(reference_shapley(plain, 3), rel=1e-3)


def test_drawn_orders_give_the_exact_values_up_to_their_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, target = sample(5, 60, 4)
    exact, drawn = worth(logits, target), worth(logits, target, exact=4)
    # Of the same samples only the orders differ.
    monkeypatch.setattr(module, "_error", lambda values, groups: torch.zeros(len(values)))
    alone = worth(logits, target, exact=4)
    for one, other in zip(drawn, alone, strict=True):
        assert 0 < other.shapley_error < one.shapley_error
    scores = []
    for seed in range(40):
        found = worth(logits, target, seed=seed, exact=4)
        assert column(found, "leave_one_out") == column(exact, "leave_one_out")
        for one, other in zip(found, exact, strict=True):
            scores.append((one.shapley - other.shapley) / one.shapley_error)
    assert 0.8 < np.std(scores) < 1.25


@pytest.mark.parametrize("m", [2, 5, 70])
def test_drawn_orders_come_with_their_reverses(m: int) -> None:
    drawn = drawn_coalitions(m, seed=1)
    assert torch.equal(drawn.walks[:, 1], drawn.walks[:, 0].flip(-1))
    assert drawn.members[0].sum() == 0
    assert drawn.members[-1].all()
    assert torch.equal(~drawn.members[drawn.without], torch.eye(m, dtype=torch.bool))
    for pair in range(10):
        for order, stops in zip(drawn.walks[pair], drawn.stops[pair], strict=True):
            for place, stop in enumerate(stops):
                assert set(drawn.members[stop].nonzero()[:, 0].tolist()) == set(
                    order[:place].tolist()
                )


def test_the_seed_decides_the_orders() -> None:
    logits, target = sample(4, 60, 4)
    first, again, other = (worth(logits, target, seed=seed, exact=1) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("block", [1, 100])
def test_blocks_of_samples_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = sample(3, 40, 4)
    whole = worth(logits, target)
    monkeypatch.setattr(module, "BLOCK", block)
    for one, other in zip(worth(logits, target), whole, strict=True):
        assert one == pytest.approx(other)


def test_a_close_call_is_not_rounded_away() -> None:
    p = torch.tensor([[0.6, 0.4], [0.399999, 0.600001], [0.5, 0.5]])
    logits, target = [each.log().unsqueeze(0) for each in p], torch.tensor([1])
    value = value_of(logits, target, 1.0)
    assert value(frozenset({0, 1})) == 1.0
    assert column(worth(logits, target), "shapley") == pytest.approx(reference_shapley(value, 3))


def test_half_precision_is_computed_wider() -> None:
    logits, target = sample(3, 60, 4)
    half = [each.bfloat16() for each in logits]
    assert worth(half, target) == worth([each.float() for each in half], target)


def test_without_labels_everything_is_nan_and_of_one_sample_the_errors() -> None:
    logits, target = sample(2, 12, 3)
    for found in worth(logits, torch.full_like(target, UNLABELLED)):
        assert all(math.isnan(value) for value in found)
    one = worth([each[:1] for each in logits], target[:1])
    assert [math.isnan(value) for value in one[0]] == [False, True, False, True]


def test_what_does_not_fit_is_refused() -> None:
    logits, target = sample(2, 12, 3)
    with pytest.raises(ValueError, match="one or more teachers, got none"):
        worth([], target)
    for wrong in ([logits[0], logits[1][:, :2]], [each[:5] for each in logits], [logits[0][0]]):
        with pytest.raises(ValueError, match=r"must be \(samples, classes\) with 12 samples"):
            worth(wrong, target)


def saved(folder: Path, logits: dict[str, Tensor], target: Tensor) -> Path:
    """A run's folder, as far as it is needed."""
    names = tuple("abcd"[: next(iter(logits.values())).shape[-1]])
    said = Predictions(names, torch.arange(len(target)), target, logits)
    (folder / "predictions").mkdir(parents=True)
    write_predictions(said, folder / "predictions" / "val.safetensors")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["worth", str(folder)])
    return module.main()


def test_the_command_line_shows_each_teacher(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (weak, strong), target = sample(2, 100, 4)
    teachers = [weak, strong, strong.clone()]
    others = {"ensemble": weak, "student": weak}
    named = {f"teacher/{k}": each for k, each in enumerate(teachers)}
    run(monkeypatch, saved(Path("run"), {**named, **others}, target))
    lines = capsys.readouterr().out.splitlines()
    whole = accuracy(Mixture([nn.Identity()] * 3).merge(teachers), target)
    assert lines[1] == f"ensemble of 3 teachers: accuracy {100 * whole:.2f} on 80 samples, val"
    rows = [line.split() for line in lines if line.startswith("teacher/")]
    for number, (row, its) in enumerate(zip(rows, worth(teachers, target), strict=True)):
        without = [each for k, each in enumerate(teachers) if k != number]
        assert row == [
            f"teacher/{number}",
            f"{100 * accuracy(teachers[number], target):.2f}",
            f"{100 * accuracy(Mixture([nn.Identity()] * 2).merge(without), target):.2f}",
            f"{100 * its.shapley:.2f}",
            "±",
            f"{100 * its.shapley_error:.2f}",
        ]
    assert lines[-1].startswith("The ensemble would not miss teacher/0, teacher/1 or teacher/2,")


def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, target = sample(2, 12, 3)
    both = {f"teacher/{k}": each for k, each in enumerate(logits)}
    unknown = torch.full_like(target, UNLABELLED)
    damaged = saved(Path("damaged"), both, target)
    (damaged / "predictions" / "val.safetensors").write_bytes(b"damaged")
    for folder, words in (
        (Path("nowhere"), "nowhere: expected a run that kept its predictions, found no nowhere/pr"),
        (saved(Path("one"), {"teacher/0": logits[0]}, target), "expected two teachers or more, "),
        (saved(Path("unlabelled"), both, unknown), "expected samples with labels, got none"),
        (damaged, "expected the predictions of a run, got something else"),
    ):
        assert run(monkeypatch, folder) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.splitlines()) == 1
        assert said.err.startswith("error: ")
        assert words in said.err

"""What each metric says of cases that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ensemble_kd.metrics import (
    Agreement,
    Brier,
    ErrorInheritance,
    KnowledgeTransfer,
    NegativeLogLikelihood,
    OracleAccuracy,
    PredictiveKL,
    ProbabilityLoyalty,
    TeacherDiversity,
)
from ensemble_kd.types import NEVER, UNLABELLED

CLASSES = 5


def named(*classes: int) -> Tensor:
    """(n, 5) logits that leave no doubt."""
    return 100 * torch.nn.functional.one_hot(torch.tensor(classes), CLASSES).float()


def noise(*shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# Negative log-likelihood


def test_nll_of_a_literal() -> None:
    metric = NegativeLogLikelihood()
    metric.update(torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([0]))
    assert float(metric.compute()) == pytest.approx(math.log(4.0))


def test_nll_of_saturated_logits_is_finite() -> None:
    metric = NegativeLogLikelihood()
    metric.update(torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.tensor([0, 0]))
    assert float(metric.compute()) == pytest.approx(1e4)


# Brier score


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([0.0, 0.0], 0.5),
        ([0.0, math.log(3.0)], 2 * 0.75**2),
        ([0.0, -math.inf], 0.0),
        ([-math.inf, 0.0], 2.0),
        ([NEVER, 0.0], 2.0),
        ([1e4, -1e4], 0.0),
        ([0.0, 0.0, 0.0, 0.0], 0.75**2 + 3 * 0.25**2),
    ],
    ids=str,
)
def test_brier_of_a_literal_whose_class_is_the_first(logits: list[float], expected: float) -> None:
    metric = Brier()
    metric.update(torch.tensor([logits]), torch.tensor([0]))
    assert float(metric.compute()) == pytest.approx(expected)


# Both


@pytest.mark.parametrize(
    ("metric", "expected"), [(NegativeLogLikelihood, math.log(2.0)), (Brier, 0.5)]
)
def test_what_an_unlabelled_sample_holds_is_skipped(
    metric: type[NegativeLogLikelihood | Brier], expected: float
) -> None:
    measured = metric()
    logits = torch.tensor([[0.0, 0.0], [math.nan, math.inf]])
    measured.update(logits, torch.tensor([1, UNLABELLED]))
    assert float(measured.compute()) == pytest.approx(expected)


# Agreement


def test_agreement_ignores_scale_and_counts_ties_by_the_first_class() -> None:
    metric = Agreement()
    metric.update(torch.tensor([[1.0, 5.0], [2.0, 2.0]]), torch.tensor([[-3.0, -1.0], [9.0, 0.0]]))
    assert float(metric.compute()) == 1.0


# Predictive KL


def test_kl_has_a_direction() -> None:
    student, reference = torch.zeros(1, 2), torch.tensor([[0.9, 0.1]]).log()
    metric = PredictiveKL()
    metric.update(student, reference)
    assert float(metric.compute()) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


def test_kl_of_a_predictor_with_itself_is_zero() -> None:
    logits = noise(9, CLASSES)
    metric = PredictiveKL()
    metric.update(logits, logits + 7.0)
    assert float(metric.compute()) == pytest.approx(0.0, abs=1e-6)


def test_kl_where_the_reference_rules_a_class_out() -> None:
    metric = PredictiveKL()
    metric.update(torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.0, -math.inf]]))
    assert float(metric.compute()) == 0.0


def test_kl_where_only_the_student_rules_a_class_out_is_infinite() -> None:
    metric = PredictiveKL()
    metric.update(torch.tensor([[0.0, -math.inf]]), torch.tensor([[0.0, 0.0]]))
    assert float(metric.compute()) == math.inf


# Probability loyalty


def loyalty(student: Tensor, reference: Tensor) -> float:
    metric = ProbabilityLoyalty()
    metric.update(student, reference)
    return float(metric.compute())


@pytest.mark.parametrize("never", [-math.inf, NEVER])
def test_loyalty_of_those_who_think_nothing_possible_in_common_is_zero(never: float) -> None:
    first, second = torch.tensor([[0.0, 0.0, never]]), torch.tensor([[never, never, 0.0]])
    assert loyalty(first, second) == 0.0
    assert loyalty(second, first) == 0.0


def test_loyalty_where_one_rules_a_class_out() -> None:
    # (1, 0) and (1/2, 1/2): the mean is (3/4, 1/4).
    bits = (math.log2(4 / 3) + 0.5 * math.log2(2 / 3) + 0.5 * math.log2(2)) / 2
    said = torch.tensor([[0.0, -math.inf]]), torch.zeros(1, 2)
    assert loyalty(*said) == pytest.approx(1 - math.sqrt(bits))


def test_loyalty_to_oneself_is_one_and_next_to_oneself_nearly() -> None:
    # Where a sum of two KL divergences is all rounding, of which the root would make 1e-4.
    logits = noise(500, CLASSES)
    assert loyalty(logits, logits.clone()) == 1.0
    assert loyalty(logits, logits + 7.0) == pytest.approx(1.0, abs=1e-6)
    nearby = logits.double() + 1e-5 * noise(500, CLASSES).flip(0)
    exact = loyalty(logits.double(), nearby)
    assert 1e-6 < 1 - exact < 1e-5
    assert loyalty(logits, nearby.float()) == pytest.approx(exact, abs=3e-7)


# Error inheritance


def inheritance(student: Tensor, teacher: Tensor, target: list[int]) -> float:
    metric = ErrorInheritance()
    metric.update(student, teacher, torch.tensor(target))
    return float(metric.compute())


def test_errors_are_inherited_with_their_class() -> None:
    student, teacher = named(1, 1, 1, 0, 4), named(1, 2, 0, 1, 4)
    assert inheritance(student, teacher, [0, 0, 0, 0, 0]) == 2 / 4


def test_a_student_without_errors_inherits_nan() -> None:
    assert math.isnan(inheritance(named(1, 2), named(3, 2), [1, 2]))
    assert math.isnan(inheritance(named(1, 2), named(1, 2), [UNLABELLED, UNLABELLED]))


def test_of_a_perfect_teacher_and_of_one_s_own_errors() -> None:
    assert inheritance(named(1, 2), named(0, 0), [0, 0]) == 0.0
    assert inheritance(named(1, 2), named(1, 2), [0, 0]) == 1.0


# Knowledge transfer


def transfer(student: Tensor, teacher: Tensor, control: Tensor, target: list[int]) -> list[float]:
    metric = KnowledgeTransfer()
    metric.update(student, teacher, control, torch.tensor(target))
    said = metric.compute()
    assert list(said) == ["positive", "positive_n", "negative", "negative_n"]
    return [float(value) for value in said.values()]


def test_transfer_looks_at_samples_where_teacher_and_control_differ_in_being_right() -> None:
    target = [0] * 8 + [UNLABELLED]
    teacher = named(0, 0, 0, 0, 1, 1, 1, 2, 0)
    control = named(1, 1, 2, 0, 0, 0, 2, 1, 1)
    student = named(0, 1, 0, 1, 0, 3, 0, 0, 0)
    assert transfer(student, teacher, control, target) == pytest.approx([2 / 3, 3, 1 / 2, 2])


def test_transfer_of_a_teacher_that_is_like_the_control_is_nan_of_none() -> None:
    found = transfer(named(0, 1), named(0, 1), named(0, 2), [0, 0])
    assert found == pytest.approx([math.nan, 0, math.nan, 0], nan_ok=True)


def test_transfer_of_a_perfect_teacher_is_positive_only() -> None:
    found = transfer(named(0, 1), named(0, 0), named(1, 1), [0, 0])
    assert found == pytest.approx([1 / 2, 2, math.nan, 0], nan_ok=True)


# Diversity


def diversity(logits: list[Tensor], target: list[int]) -> dict[str, float]:
    metric = TeacherDiversity(len(logits))
    metric.update(torch.stack(logits), torch.tensor(target))
    return {name: float(value) for name, value in metric.compute().items()}


def test_the_same_teacher_twice_is_not_diverse() -> None:
    found = diversity([named(0, 1), named(0, 1)], [0, 0])
    assert found == {"disagreement": 0.0, "q_statistic": 1.0, "js_divergence": 0.0}


def test_teachers_that_are_right_in_turn_are_as_diverse_as_can_be() -> None:
    # One bit each: two teachers that are sure of two classes.
    found = diversity([named(0, 1), named(1, 0)], [0, 0])
    assert found == {"disagreement": 1.0, "q_statistic": -1.0, "js_divergence": 1.0}


@pytest.mark.parametrize("teachers", [3, 4, 5])
def test_the_divergence_of_teachers_who_are_each_sure_of_another_class(teachers: int) -> None:
    found = diversity([named(each) for each in range(teachers)], [UNLABELLED])
    assert found["js_divergence"] == pytest.approx(math.log2(teachers))
    assert found["disagreement"] == 1.0


def test_a_pair_without_a_q_is_left_out() -> None:
    right, first, second = named(0, 0, 0, 0), named(1, 0, 0, 1), named(1, 1, 0, 0)
    assert diversity([right, first, second], [0] * 4)["q_statistic"] == pytest.approx(0.0)
    one = diversity([first, first, right], [0] * 4)
    assert one["q_statistic"] == 1.0
    assert math.isnan(diversity([right, first], [0] * 4)["q_statistic"])
    assert math.isnan(diversity([first, second], [UNLABELLED] * 4)["q_statistic"])


@pytest.mark.parametrize("never", [-math.inf, NEVER])
def test_a_class_that_a_teacher_rules_out(never: float) -> None:
    # (1, 0) and (1/2, 1/2), of which the mean is (3/4, 1/4).
    logits = [torch.tensor([[0.0, never]]), torch.zeros(1, 2)]
    bits = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 1 / 2
    assert diversity(logits, [0])["js_divergence"] == pytest.approx(bits)


def test_one_teacher_is_not_several() -> None:
    with pytest.raises(ValueError, match="teachers must be two or more, got 1"):
        TeacherDiversity(1)


def test_another_number_of_teachers_is_refused() -> None:
    with pytest.raises(ValueError, match="logits must be of 3 teachers, got 2"):
        TeacherDiversity(3).update(torch.zeros(2, 4, CLASSES), torch.zeros(4, dtype=torch.int64))


# Oracle accuracy


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (named(0, 0, 0, 0), named(1, 1, 1, 1), 1.0),
        (named(0, 1, 1, 0), named(1, 1, 0, 0), 2 / 3),
        (named(1, 2, 3, 0), named(2, 1, 3, 0), 0.0),
    ],
)
def test_an_oracle_asks_who_is_right(first: Tensor, second: Tensor, expected: float) -> None:
    metric = OracleAccuracy()
    metric.update(torch.stack([first, second]), torch.tensor([0, 0, 0, UNLABELLED]))
    assert float(metric.compute()) == pytest.approx(expected)

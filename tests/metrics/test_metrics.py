"""Every metric against scikit-learn, scipy or a float64 loop, and what holds for all of them."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor
from torchmetrics import Metric

from ensemble_kd.metrics import Agreement, NegativeLogLikelihood, PredictiveKL
from ensemble_kd.types import UNLABELLED

CLASSES = 5


def reference_negative_log_likelihood(logits: Tensor, target: Tensor) -> float:
    known = (target != UNLABELLED).numpy()
    probabilities = softmax(logits.double().numpy(), axis=-1)[known]
    return float(log_loss(target.numpy()[known], probabilities, labels=range(CLASSES)))


def reference_agreement(first: Tensor, second: Tensor) -> float:
    return float(accuracy_score(first.numpy().argmax(-1), second.numpy().argmax(-1)))


def reference_predictive_kl(student: Tensor, reference: Tensor) -> float:
    p = softmax(student.double().numpy(), axis=-1)
    q = softmax(reference.double().numpy(), axis=-1)
    return float(np.mean([sum(rel_entr(q_i, p_i)) for p_i, q_i in zip(p, q, strict=True)]))


class Case(NamedTuple):
    """A metric, its reference, and whether its second argument is the classes or other logits."""

    metric: Callable[[], Metric]
    reference: Callable[[Tensor, Tensor], float]
    takes_target: bool


CASES = {
    "nll": Case(NegativeLogLikelihood, reference_negative_log_likelihood, True),
    "agreement": Case(Agreement, reference_agreement, False),
    "kl": Case(PredictiveKL, reference_predictive_kl, False),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def sample(case: Case, n: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Seeded logits of n samples, and classes (every third unknown) or another's logits."""
    generator = torch.Generator().manual_seed(n)
    first = (3 * torch.randn(n, CLASSES, generator=generator)).to(dtype)
    second = (first + 2 * torch.randn(n, CLASSES, generator=generator)).to(dtype)
    target = torch.randint(CLASSES, (n,), generator=generator)
    target[2::3] = UNLABELLED
    return first, target if case.takes_target else second


def batches(first: Tensor, second: Tensor, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    ends = list(accumulate(sizes))
    spans = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return [(first[span], second[span]) for span in spans]


def measured(metric: Metric, first: Tensor, second: Tensor, sizes: Sequence[int]) -> float:
    for a, b in batches(first, second, sizes):
        metric.update(a, b)
    return float(metric.compute())


@pytest.mark.parametrize("sizes", [(1,), (7, 7, 2), (1, 30, 5, 12)], ids=str)
def test_equals_the_reference_however_the_samples_are_cut(case: Case, sizes: Sequence[int]) -> None:
    first, second = sample(case, sum(sizes))
    expected = case.reference(first, second)
    assert measured(case.metric(), first, second, sizes) == pytest.approx(expected, rel=1e-5)


def test_is_not_a_mean_of_batch_means(case: Case) -> None:
    first, second = sample(case, 40)
    halves = [case.reference(a, b) for a, b in batches(first, second, [37, 3])]
    assert measured(case.metric(), first, second, [37, 3]) != pytest.approx(
        np.mean(halves), rel=1e-3
    )


def test_merges_states_as_if_one_metric_had_seen_everything(case: Case) -> None:
    first, second = sample(case, 40)
    one, other = case.metric(), case.metric()
    one.update(first[:33], second[:33])
    other.update(first[33:], second[33:])
    one.merge_state(other)
    assert float(one.compute()) == pytest.approx(case.reference(first, second), rel=1e-5)


def test_survives_pickling_in_the_middle(case: Case) -> None:
    first, second = sample(case, 40)
    metric = case.metric()
    metric.update(first[:10], second[:10])
    revived: Metric = pickle.loads(pickle.dumps(metric))
    assert measured(revived, first[10:], second[10:], [30]) == pytest.approx(
        case.reference(first, second), rel=1e-5
    )


def test_reset_forgets(case: Case) -> None:
    first, second = sample(case, 40)
    metric = case.metric()
    metric.update(first[:10], second[:10])
    metric.reset()
    assert measured(metric, first[10:], second[10:], [30]) == pytest.approx(
        case.reference(first[10:], second[10:]), rel=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounds_the_inputs_only(case: Case, dtype: torch.dtype) -> None:
    # The reference sees the same rounded logits, so what is left is the metric's own rounding.
    first, second = sample(case, 48, dtype)
    wide = second if case.takes_target else second.float()
    expected = case.reference(first.float(), wide)
    assert measured(case.metric(), first, second, [48]) == pytest.approx(expected, rel=1e-5)


def test_takes_tokens_as_samples(case: Case) -> None:
    first, second = sample(case, 24)
    metric = case.metric()
    metric.update(first.reshape(4, 6, CLASSES), second.reshape(4, 6, *second.shape[1:]))
    assert float(metric.compute()) == pytest.approx(case.reference(first, second), rel=1e-5)


def test_of_nothing_is_nan(case: Case) -> None:
    metric = case.metric()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics warns of compute before update
        assert math.isnan(float(metric.compute()))


def test_many_batches_lose_no_precision(case: Case) -> None:
    first, second = sample(case, 6)
    metric = case.metric()
    for _ in range(3000):
        metric.update(first, second)
    assert float(metric.compute()) == pytest.approx(case.reference(first, second), rel=1e-4)


def test_nll_of_a_literal() -> None:
    metric = NegativeLogLikelihood()
    metric.update(torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([0]))
    assert float(metric.compute()) == pytest.approx(math.log(4.0))


def test_nll_of_unlabelled_samples_only_is_nan() -> None:
    metric = NegativeLogLikelihood()
    metric.update(torch.randn(3, CLASSES), torch.full((3,), UNLABELLED))
    assert math.isnan(float(metric.compute()))


def test_nll_skips_what_an_unlabelled_sample_holds() -> None:
    metric = NegativeLogLikelihood()
    logits = torch.tensor([[0.0, 0.0], [math.nan, math.inf]])
    metric.update(logits, torch.tensor([1, UNLABELLED]))
    assert float(metric.compute()) == pytest.approx(math.log(2.0))


def test_nll_of_saturated_logits_is_finite() -> None:
    metric = NegativeLogLikelihood()
    metric.update(torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.tensor([0, 0]))
    assert float(metric.compute()) == pytest.approx(1e4)


def test_agreement_ignores_scale_and_counts_ties_by_the_first_class() -> None:
    metric = Agreement()
    metric.update(torch.tensor([[1.0, 5.0], [2.0, 2.0]]), torch.tensor([[-3.0, -1.0], [9.0, 0.0]]))
    assert float(metric.compute()) == 1.0


def test_kl_has_a_direction() -> None:
    student, reference = torch.zeros(1, 2), torch.tensor([[0.9, 0.1]]).log()
    metric = PredictiveKL()
    metric.update(student, reference)
    assert float(metric.compute()) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


def test_kl_of_a_predictor_with_itself_is_zero() -> None:
    logits = torch.randn(9, CLASSES, generator=torch.Generator().manual_seed(0))
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

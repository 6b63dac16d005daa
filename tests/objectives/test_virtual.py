from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ensemble_kd.objectives import Term, Virtual
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

START = Progress(0, 0, 0.0)
NOBODY = torch.empty(0, 3)
LOGITS = [[0.3, -2.0, 1.5, 0.0], [4.0, 0.0, -1.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
LABELS = [2, 1, 3]


def batch(target: list[int]) -> Batch:
    labels = torch.tensor(target)
    return Batch(None, labels, torch.arange(len(target)), labels != UNLABELLED)


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(v / temperature) for v in values]
    return [p / math.fsum(powers) for p in powers]


def kl(t: list[float], p: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(t, p, strict=True))


def by_hand(label: int, classes: int, correct: float) -> list[float]:
    return [correct if c == label else (1 - correct) / (classes - 1) for c in range(classes)]


def reference_paper(z: list[float], label: int, correct: float, temperature: float) -> float:
    """KL(p^d_T || p_T), both distributions raised to the power 1 / T and normalised again."""
    powers = [p ** (1 / temperature) for p in by_hand(label, len(z), correct)]
    softened = [p / math.fsum(powers) for p in powers]
    return kl(softened, softmax(z, temperature))


def reference_code(z: list[float], label: int, correct: float, temperature: float) -> float:
    """Softmax of the probabilities over T against the unsoftened student."""
    return kl(softmax(by_hand(label, len(z), correct), temperature), softmax(z))


def said() -> Output:
    return Output(torch.tensor(LOGITS, dtype=torch.float64))


@pytest.mark.parametrize("correct", [0.9, 0.99])
@pytest.mark.parametrize("temperature", [1.0, 5.0, 20.0])
def test_it_is_the_divergence_of_the_paper(correct: float, temperature: float) -> None:
    got = Virtual(correct, temperature)(said(), (), NOBODY, batch(LABELS), START)
    want = [
        reference_paper(z, y, correct, temperature) for z, y in zip(LOGITS, LABELS, strict=True)
    ]
    assert got.tolist() == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_or_that_of_the_released_code(temperature: float) -> None:
    objective = Virtual(0.99, temperature, softening="probabilities", kl_reduction="class_mean")
    got = objective(said(), (), NOBODY, batch(LABELS), START)
    want = [
        reference_code(z, y, 0.99, temperature) / 4 for z, y in zip(LOGITS, LABELS, strict=True)
    ]
    assert got.tolist() == pytest.approx(want, rel=1e-10)


def test_which_is_numerically_uniform() -> None:
    """100 classes and T = 20: the label gets 0.0105 and each other class 0.00999."""
    target = torch.zeros(1, dtype=torch.long)
    objective = Virtual(0.99, 20.0, softening="probabilities")
    lone = Batch(None, target, target)
    z = torch.zeros(1, 100, dtype=torch.float64)
    uniform = objective(Output(z), (), torch.empty(0, 1), lone, START)
    # KL(q || uniform) of the nearly uniform q.
    assert uniform.item() == pytest.approx(1.3e-5, rel=0.1)


def test_the_square_of_the_temperature_is_optional() -> None:
    plain = Virtual(temperature=5.0)(said(), (), NOBODY, batch(LABELS), START)
    scaled = Virtual(temperature=5.0, squared_temperature=True)
    torch.testing.assert_close(scaled(said(), (), NOBODY, batch(LABELS), START), 25 * plain)


def test_a_student_that_is_the_virtual_teacher_has_no_loss() -> None:
    z = torch.tensor([by_hand(y, 4, 0.99) for y in LABELS], dtype=torch.float64).log()
    values = Virtual(0.99, 20.0)(Output(z), (), NOBODY, batch(LABELS), START)
    assert values.tolist() == pytest.approx([0.0] * 3, abs=1e-12)


def test_only_labelled_samples_count() -> None:
    z = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    values = Virtual()(Output(z), (), NOBODY, batch([2, UNLABELLED, 3]), START)
    assert values[1].item() == 0.0
    loss = Term(Virtual())(Output(z), (), NOBODY, batch([2, UNLABELLED, 3]), START)
    assert loss.item() == pytest.approx((values[0] + values[2]).item() / 2)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.equal(gradient[1], torch.zeros(4))
    assert gradient[0].abs().sum() > 0


@pytest.mark.parametrize("softening", ["logits", "probabilities"])
@pytest.mark.parametrize("target", [LABELS, [UNLABELLED] * 3])
def test_saturated_logits_stay_finite(softening: Any, target: list[int]) -> None:
    z = torch.tensor(LOGITS).mul(1e4).clamp(-1e4, 1e4).requires_grad_()
    loss = Term(Virtual(softening=softening))(Output(z), (), NOBODY, batch(target), START)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_what_it_needs() -> None:
    assert Virtual.needs_labels
    assert not Virtual.needs_teachers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"correct": 1.0}, r"correct must be in \(0, 1\), got 1.0"),
        ({"temperature": 0.0}, "temperature must be a positive finite number"),
        ({"softening": "none"}, "softening must be one of logits, probabilities, got 'none'"),
        ({"kl_reduction": "mean"}, "kl_reduction must be one of batch_mean, class_mean"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Virtual(**arguments)

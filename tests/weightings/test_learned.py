from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import Soft, Term
from ensemble_kd.types import Output
from ensemble_kd.weightings import Learned


def reference_weights(gate: Learned, teachers: list[Tensor], student: Tensor) -> list[float]:
    """One sample: a score for each teacher, number by number, then a softmax over them."""
    powers = []
    for teacher in teachers:
        seen = [*teacher.softmax(-1).tolist(), *student.softmax(-1).tolist()]
        score = 0.0
        for row, bias, out in zip(
            gate.first.weight.tolist(),
            gate.first.bias.tolist(),
            gate.last.weight[0].tolist(),
            strict=True,
        ):
            score += out * max(0.0, bias + math.fsum(a * b for a, b in zip(row, seen, strict=True)))
        powers.append(math.exp(score))
    return [power / math.fsum(powers) for power in powers]


@pytest.fixture
def gate() -> Learned:
    torch.manual_seed(0)
    gate = Learned(5, hidden=7)
    torch.nn.init.normal_(gate.last.weight)
    return gate.double()


def test_it_is_the_definition(situation: Callable[..., Any], gate: Learned) -> None:
    given = situation()
    weights = gate(*given)
    for i in range(4):
        want = reference_weights(gate, [t.logits[i] for t in given[0]], given[1].logits[i])
        assert weights[:, i].tolist() == pytest.approx(want, rel=1e-9)


def test_it_starts_with_equal_weights(situation: Callable[..., Any]) -> None:
    weights = Learned(5)(*situation(dtype=torch.float32))
    torch.testing.assert_close(weights, torch.full((3, 4), 1 / 3))


@pytest.mark.parametrize("merge", ["losses", "probabilities", "logits"])
def test_the_gate_learns_through_the_objective(
    situation: Callable[..., Any], gate: Learned, merge: Any
) -> None:
    teachers, student, batch, progress = situation()
    student = Output(student.logits.requires_grad_())
    weights = gate(teachers, student, batch, progress)
    torch.autograd.backward(Term(Soft(2.0, merge))(student, teachers, weights, batch, progress))
    for parameter in gate.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_the_student_does_not_learn_through_the_gate(
    situation: Callable[..., Any], gate: Learned
) -> None:
    """Its gradient is the one that constant weights would give."""
    teachers, student, batch, progress = situation()
    student = Output(student.logits.requires_grad_())
    weights = gate(teachers, student, batch, progress)
    got, want = (
        torch.autograd.grad(Term(Soft())(student, teachers, w, batch, progress), student.logits)
        for w in (weights, weights.detach())
    )
    torch.testing.assert_close(got, want)


def test_it_learns_to_prefer_the_teacher_that_costs_less(situation: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    gate = Learned(5)
    _, student, batch, progress = situation(dtype=torch.float32, shape=(16,))
    near = Output(student.logits + 0.1)
    far = Output(-student.logits)
    optimizer = torch.optim.Adam(gate.parameters(), 0.05)
    for _ in range(30):
        weights = gate((near, far), student, batch, progress)
        optimizer.zero_grad()
        torch.autograd.backward(Term(Soft())(student, (near, far), weights, batch, progress))
        optimizer.step()
    assert gate((near, far), student, batch, progress)[0].mean() > 0.9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_have_a_single_precision_gate(
    situation: Callable[..., Any], dtype: torch.dtype
) -> None:
    weights = Learned(5)(*situation(dtype=dtype))
    assert weights.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Learned(5)(*situation(dtype=dtype)).dtype == torch.float32


@pytest.mark.parametrize(("arguments", "name"), [((0,), "classes"), ((5, 0), "hidden")])
def test_sizes_must_be_positive(arguments: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive number, got 0"):
        Learned(*arguments)

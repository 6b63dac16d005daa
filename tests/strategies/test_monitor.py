from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.plan import make_plan
from ensemble_kd.strategies import Parallel
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress
from ensemble_kd.weightings import Monitor

START = Progress(0, 0, 0.0)
Maker = Callable[[int], nn.Module]


def monitored(threshold: float) -> Parallel:
    terms = {"label": Term(Label()), "soft": Term(Soft(temperature=2.0))}
    return Parallel(terms, Monitor(threshold))


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp((z - max(row)) / temperature) for z in row]
    return [power / math.fsum(powers) for power in powers]


def top(row: list[float]) -> int:
    return max(range(len(row)), key=lambda c: row[c])


def reference_soft(
    student: list[list[float]],
    teachers: list[list[list[float]]],
    target: list[int],
    threshold: float,
) -> tuple[float, list[bool]]:
    """T^2 KL from those who speak, their mean, over all samples; and where anybody speaks."""
    total, spoken = 0.0, []
    for b, label in enumerate(target):
        guesses = [top(teacher[b]) for teacher in teachers]
        counts = [guesses.count(c) for c in range(4)]
        majority = counts.index(max(counts)) if 2 * max(counts) > len(teachers) else None
        right = majority if label == UNLABELLED else label
        needy = top(student[b]) != right or max(softmax(student[b], 1.0)) < threshold
        speakers = [t[b] for t, g in zip(teachers, guesses, strict=True) if g == right and needy]
        spoken.append(bool(speakers))
        q = softmax(student[b], 2.0)
        for row in speakers:
            p = softmax(row, 2.0)
            kl = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            total += 4 * kl / len(speakers)
    return total / len(target), spoken


@pytest.mark.parametrize("threshold", [0.0, 0.35, 0.9, 1.0])
@pytest.mark.parametrize("teachers", [1, 3])
def test_teachers_speak_where_they_are_right_and_needed(
    network: Maker,
    ensemble: Callable[[int], Ensemble],
    batch: Batch,
    threshold: float,
    teachers: int,
) -> None:
    student, taught = network(3), ensemble(teachers)
    (turn,) = monitored(threshold).turns(student, taught, batch, START)
    said = student(batch.inputs)
    rows = [teacher(batch.inputs).logits.tolist() for teacher in taught.members]
    want, spoken = reference_soft(said.tolist(), rows, batch.target.tolist(), threshold)
    assert turn.terms["soft"].item() == pytest.approx(want, rel=1e-6)
    assert turn.measured["gate"].item() == pytest.approx(sum(spoken) / 7)


def test_a_student_that_needs_nobody_is_left_alone(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    """One that says what all teachers say, at a threshold of zero: no soft gradient at all."""
    student, taught = network(100), ensemble(1)
    unlabelled = torch.full_like(batch.target, UNLABELLED)
    alone = batch._replace(target=unlabelled, mask=torch.zeros(7, dtype=torch.bool))
    (turn,) = monitored(0.0).turns(student, taught, alone, START)
    sum(turn.terms.values(), torch.zeros(())).backward()
    assert turn.measured["gate"].item() == 0.0
    for p in student.parameters():
        assert p.grad is not None
        assert not p.grad.any()


def test_saturated_networks_stay_finite(
    network: Maker, ensemble: Callable[[int], Ensemble], batch: Batch
) -> None:
    student = network(0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1e3)
    (turn,) = monitored(1.0).turns(student, ensemble(2), batch, START)
    sum(turn.terms.values(), torch.zeros(())).backward()
    for p in student.parameters():
        assert p.grad is not None
        assert p.grad.isfinite().all()


def test_the_threshold_is_that_of_the_configuration() -> None:
    plan = make_plan(compose(["strategy=monitor", "strategy.threshold=0.4", "weighting=random"]))
    student: Any = {stage.name: stage for stage in plan.stages}["student"].strategy
    assert student["weighting"]["_target_"].endswith("Monitor")
    assert student["weighting"]["threshold"] == 0.4
    with pytest.raises(UserError, match=r"strategy.*: threshold must be in \[0, 1\], got 2"):
        make_plan(compose(["strategy=monitor", "strategy.threshold=2"]))


def test_a_run_logs_how_often_the_teachers_spoke(trained: Callable[..., Any]) -> None:
    """Only about mistakes: ever less often; also about what is unsure: more often."""
    run = ["strategy=monitor", "teacher.members=[cnn_tiny]", "epochs=6", "controls=[]"]
    mistakes, unsure = trained(*run, "strategy.threshold=0"), trained(*run)
    gates = [done.curves["student", "student/gate"] for done in (mistakes, unsure)]
    for gate in gates:
        assert len(gate) == 6
        assert all(0 <= share <= 1 for share in gate)
    assert gates[0][-1] < 0.7 * gates[0][0]
    assert all(few < many for few, many in zip(*gates, strict=True))
    assert unsure.accuracies["student"] > 0.7

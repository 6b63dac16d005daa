from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ensemble_kd.strategies.disk import Guide


def test_on_digits_censoring_has_its_price_and_changes_the_student(
    trained: Callable[..., Any],
) -> None:
    """The guide censors less where that is dear, and the student is another one then."""
    run = ("strategy=disk", "teacher=single", "teacher.epochs=6", "controls=[]", "epochs=6")
    means, students = [], []
    for penalty in (1.0, 200.0):
        done = trained(*run, f"strategy.penalty={penalty}", "strategy.budget=0.05")
        assert list(done.networks) == ["teacher/0", "ensemble", "student"]
        losses = {name for stage, name in done.curves if stage == "student"}
        guide = {f"guide/{n}" for n in ("scaffold", "normaliser", "budget", "censored")}
        assert losses == guide | {"student/label", "student/scaffold", "student/val_accuracy"}
        assert done.accuracies["student"] > 0.5
        means.append(done.curves["student", "guide/censored"][-1])
        students.append(done.networks["student"].state_dict())
        assert isinstance(done.products["student"].learner.strategy.guide, Guide)
        assert type(done.products["student"].learner.deliverable()).__name__ == "Cnn"
    assert means[1] < 0.7 * means[0]
    assert any(not torch.equal(students[0][name], value) for name, value in students[1].items())

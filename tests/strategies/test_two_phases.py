from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Stage
from ensemble_kd.strategies import TwoPhases

LAST = Stage(
    name="student",
    student={"_target_": "small"},
    teachers=("teacher/0", "teacher/1"),
    strategy={"_target_": "matching"},
    optimizers={"default": {"lr": 1}, "weighting": {"lr": 2}},
    trainer={},
    data="",
    labelled_only=False,
    epochs=10,
    select="best",
    seed=7,
    ensemble={"_target_": "trajectory"},
)
LABELS = {"_target_": "labels"}


def test_the_second_phase_goes_on_from_the_first_without_teachers() -> None:
    first, second = TwoPhases(LABELS).stages(LAST)
    assert first == replace(LAST, name="phase/1", epochs=5)
    assert second == replace(
        LAST,
        teachers=(),
        strategy=LABELS,
        optimizers={"default": {"lr": 1}},
        epochs=5,
        ensemble=None,
        initial="phase/1",
    )


@pytest.mark.parametrize(
    ("epochs", "share", "split"),
    [
        (10, 0.5, (5, 5)),
        (10, 0.75, (8, 2)),
        (7, 0.5, (4, 3)),
        (40, 0.01, (1, 39)),
        (40, 0.99, (39, 1)),
        (2, 0.9, (1, 1)),
        (1, 0.5, (1, 1)),
    ],
)
def test_the_phases_share_the_epochs(epochs: int, share: float, split: tuple[int, int]) -> None:
    stages = TwoPhases(LABELS, share).stages(replace(LAST, epochs=epochs))
    assert tuple(stage.epochs for stage in stages) == split


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got"):
        TwoPhases(LABELS, share)


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match=r"strategy\.chain: share must be in \(0, 1\), got 1"):
        make_plan(compose(["strategy=annealing", "strategy.share=1"]))
    with pytest.raises(UserError, match=r"max_temperature must be an integer >= 1, got 0"):
        make_plan(compose(["strategy=annealing", "strategy.matched.max_temperature=0"]))
    with pytest.raises(UserError, match="at least one teacher"):
        make_plan(compose(["strategy=annealing", "teacher=none"]))


def probabilities(done: Any, name: str) -> Tensor:
    x = torch.cat([batch.inputs for batch in done.plan.data.val_dataloader()])
    with torch.no_grad():
        said: Tensor = done.networks[name](x).softmax(-1)
    return said


RUN = ("teacher.members=[cnn_tiny]", "teacher.epochs=6")


def test_annealing_learns_from_the_teacher_and_then_from_the_labels(
    trained: Callable[..., Any],
) -> None:
    done = trained("strategy=annealing", *RUN, "epochs=12")
    assert list(done.networks) == [
        "teacher/0",
        "ensemble",
        "phase/1",
        "student",
        "control/no_teacher",
    ]
    losses = {stage: {n for s, n in done.curves if s == stage} for stage, _ in done.curves}
    assert losses["phase/1"] == {"student/logits", "student/val_accuracy"}
    assert losses["student"] == {"student/label", "student/val_accuracy"}
    # Only who starts where the first phase ended is that good in the first epoch.
    assert (
        done.curves["student", "student/label"][0]
        < 0.7 * done.curves["control/no_teacher", "student/label"][0]
    )
    assert done.accuracies["student"] > done.accuracies["phase/1"] - 0.02
    assert [len(done.curves[stage, "student/val_accuracy"]) for stage in losses] == [6, 6, 6, 12]


def test_progressive_follows_the_teacher_through_its_own_training(
    trained: Callable[..., Any],
) -> None:
    """Over teachers that keep their epochs; without the trajectory it is another student."""
    run = ["strategy=progressive", *RUN, "epochs=12", "controls=[]"]
    done = trained(*run)
    kept = sorted(path.name for path in done.products["teacher/0"].artefact.folder.glob("epoch-*"))
    assert kept == [f"epoch-{number:04d}.safetensors" for number in range(6)]
    assert not list(done.products["phase/1"].artefact.folder.glob("epoch-*"))
    plain = trained(*run, "strategy.ensemble=null")
    assert not list(plain.products["teacher/0"].artefact.folder.glob("epoch-*"))
    torch.testing.assert_close(probabilities(plain, "teacher/0"), probabilities(done, "teacher/0"))
    # An early teacher is unsure: its student is at first less wrong about it.
    early, late = (each.curves["phase/1", "student/soft"][0] for each in (done, plain))
    assert early < 0.8 * late
    assert not torch.equal(probabilities(plain, "phase/1"), probabilities(done, "phase/1"))


def test_a_trajectory_can_be_that_of_a_stored_teacher(trained: Callable[..., Any]) -> None:
    run = ["strategy=progressive", "epochs=4", "controls=[]", "teacher.epochs=3"]
    done = trained(*run, "teacher.members=[cnn_tiny]")
    folder = done.products["teacher/0"].artefact.folder
    again = trained(*run, f"teacher.members=[{{artefact:{folder}}}]", "paths.store=other")
    assert torch.equal(probabilities(again, "student"), probabilities(done, "student"))

    other = trained(*run, "strategy=parallel", "teacher.members=[cnn_tiny]")
    bare = other.products["teacher/0"].artefact.folder
    with pytest.raises(UserError, match="teacher/0: the strategy follows a teacher"):
        trained(*run, f"teacher.members=[{{artefact:{bare}}}]")

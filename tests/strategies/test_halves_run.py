"""Two teachers that each know one half of the classes, on real data."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.types import as_output

HALVES = (range(5), range(5, 10))


def test_one_student_learns_all_classes_from_two_halves(trained: Callable[..., Any]) -> None:
    run = ("strategy=parallel", "epochs=7", "teacher.epochs=7", "student=cnn_small")
    halves = trained(*run, "teacher=halves")
    oracle = trained(*run, "teacher.members=[cnn_large,cnn_large]", "controls=[]")
    for number in range(2):
        assert halves.accuracies[f"teacher/{number}"] < 0.6
    assert halves.accuracies["ensemble"] > 0.75
    assert halves.accuracies["student"] > 0.8
    assert halves.accuracies["student"] > oracle.accuracies["student"] - 0.08
    # What only they can have taught it: how the classes within each half relate.
    assert apart(halves, "student") < 0.7 * apart(halves, "control/no_teacher")


def test_without_a_term_for_labels_the_halves_make_a_student_of_all(
    trained: Callable[..., Any],
) -> None:
    """A label only says who speaks; what they say is all that the student learns from."""
    run = ("strategy=parallel", "epochs=7", "teacher.epochs=7", "student=cnn_small")
    alone = ("objective.label_weight=0", "controls=[]", "data.labelled=null")
    halves = trained(*run, *alone, "teacher=halves")
    assert halves.accuracies["student"] > 0.85


def test_a_coarse_teacher_and_one_that_knows_more(trained: Callable[..., Any]) -> None:
    coarse = "[['0','6','8','9'],['1','7','4'],['2','3','5']]"
    members = f"[{{network: cnn_large, classes: {coarse}}},cnn_small]"
    run = trained("epochs=4", "teacher.epochs=4", f"teacher.members={members}", "controls=[]")
    coarse_network = run.products["teacher/0"].learner.deliverable()
    assert as_output(coarse_network(torch.zeros(1, 1, 8, 8))).logits.shape == (1, 3)
    assert run.networks["teacher/0"](torch.zeros(1, 1, 8, 8)).logits.shape == (1, 10)
    assert all(accuracy > 0.2 for accuracy in run.accuracies.values())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ("[{network: cnn_small, classes: ['0', '11']}]", "teacher/0: classes must be .*'11'"),
        ("[{network: cnn_small, classes: ['0', ['1', '0']]}]", "'0' twice"),
        ("[{network: cnn_small, classes: some}]", "expected a list of classes, got 'some'"),
        ("[{network: cnn_smal, classes: ['0', '1']}]", "did you mean 'cnn_small'"),
    ],
)
def test_mistakes_name_the_classes(trained: Callable[..., Any], members: str, words: str) -> None:
    from ensemble_kd.errors import UserError

    with pytest.raises(UserError, match=words):
        trained(f"teacher.members={members}")


def apart(done: Any, name: str) -> float:
    """Mean KL divergence of a network from the two teachers, each within its own classes."""
    values = []
    with torch.no_grad():
        for batch in done.plan.data.val_dataloader():
            own = said(done.networks[name], batch.inputs)
            for number, half in enumerate(HALVES):
                within = [c in half for c in range(10)]
                target = said(done.networks[f"teacher/{number}"], batch.inputs)[:, within]
                log_p, log_q = target.log_softmax(-1), own[:, within].log_softmax(-1)
                values.append(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()))
    return statistics.fmean(values)


def said(network: nn.Module, inputs: Tensor) -> Tensor:
    return as_output(network(inputs)).logits

"""Teachers that know some of the classes, others, more, or coarser ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.data import Relabelled
from ensemble_kd.functional import merged_kl
from ensemble_kd.teachers import Ensemble, Frozen, LabelSpace, Translated, covered, refined
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress

Translating = Callable[..., tuple[Tensor, Output]]
Softmax = Callable[[list[float]], list[float]]
NAMES = ("ant", "bee", "cat", "dog", "elk")
START = Progress(0, 0, 0.0)


def test_a_permutation_is_an_ordinary_teacher(translated: Translating) -> None:
    own, said = translated(["dog", "ant", "elk", "cat", "bee"])
    assert said.groups is None
    assert said.logits.tolist() == own[:, [1, 4, 3, 0, 2]].tolist()


def test_classes_that_the_student_has_not_are_left_out(translated: Translating) -> None:
    own, said = translated(["dog", None, "ant", "elk", None, "cat", "bee"])
    assert said.groups is None
    torch.testing.assert_close(said.logits.softmax(-1), own[:, [2, 6, 5, 0, 3]].softmax(-1))


def test_of_a_class_that_it_does_not_know_a_teacher_says_nothing(translated: Translating) -> None:
    own, said = translated(["cat", "ant"])
    assert said.groups is not None
    assert said.groups[0].tolist() == [1, -1, 0, -1, -1]
    assert said.logits[:, [0, 2]].tolist() == own[:, [1, 0]].tolist()
    assert (said.logits[:, [1, 3, 4]] == -torch.inf).all()


def test_a_coarse_class_has_the_probability_of_its_classes_together(
    translated: Translating,
) -> None:
    own, said = translated([["cat", "dog", "elk"], ["ant"], "bee"])
    p = said.logits.softmax(-1)
    wholes = own.softmax(-1)
    assert p[:, 2:].sum(-1).tolist() == pytest.approx(wholes[:, 0].tolist())
    torch.testing.assert_close(p[:, :2], wholes[:, 1:])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["ant", "wolf"], "'wolf', which is none of ant, bee, cat, dog, elk"),
        (["ant", "bee", "ant"], "'ant' twice"),
        (["ant", ["bee", "ant"]], "'ant' twice"),
        (["ant", None], "at least two classes"),
        ([["ant", "bee"]], "at least two classes"),
        (["ant", "bee", []], "must not hold an empty list"),
        (["ant", 1.5], "must hold names, lists of names or null, got 1.5"),
        (["ant", {"bee": 1}], "must hold names, lists of names or null, got {'bee': 1}"),
    ],
)
def test_what_is_ambiguous_is_refused_by_name(classes: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        covered(classes, NAMES)


def test_a_name_that_two_classes_have_is_ambiguous() -> None:
    with pytest.raises(ValueError, match="'ant', which stands twice among"):
        covered(["ant", "bee"], ("ant", "ant", "bee"))


def test_every_output_needs_an_entry() -> None:
    with pytest.raises(ValueError, match="each of the teacher's 3 outputs, got 2"):
        LabelSpace(covered(["ant", "bee"], NAMES), 5)(Output(torch.zeros(1, 3)))


# What a coarse teacher means to a learner.


def reference_refined(groups: list[list[int]], coarse: list[float], q: list[float]) -> list[float]:
    """P(g) q(c) / q(g), zero for classes of no group."""
    found = [0.0] * 5
    for p, group in zip(coarse, groups, strict=True):
        whole = sum(q[c] for c in group)
        for c in group:
            found[c] = p * q[c] / whole
    return found


@pytest.mark.parametrize(
    "classes",
    [
        [["cat", "dog", "elk"], ["ant", "bee"]],
        ["bee", ["elk", "ant"]],
        [["cat", "ant"], "dog", None, ["bee", "elk"]],
    ],
)
def test_a_coarse_teacher_says_nothing_within_its_classes(
    classes: list[Any], translated: Translating, softmax: Softmax
) -> None:
    own, said = translated(classes)
    learner = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    voice = refined(said, Output(learner))
    kept = [i for i, entry in enumerate(classes) if entry is not None]
    groups = [list(covered(classes, NAMES)[i]) for i in kept]
    for i in range(3):
        coarse, q = softmax(own[i, kept].tolist()), softmax(learner[i].tolist())
        expected = reference_refined(groups, coarse, q)
        assert voice.logits[i].softmax(-1).tolist() == pytest.approx(expected)
    assert not voice.logits.requires_grad


def test_the_gradient_is_that_of_the_divergence_between_groups(translated: Translating) -> None:
    own, said = translated([["cat", "dog", "elk"], ["ant", "bee"]])
    learner = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    voice = refined(said, Output(learner))
    weights = torch.ones(1, 3, dtype=torch.float64)
    (found,) = torch.autograd.grad(merged_kl(voice.logits[None], learner, weights).sum(), learner)
    log_q = learner.log_softmax(-1)
    coarse = torch.stack([log_q[:, 2:].logsumexp(-1), log_q[:, :2].logsumexp(-1)], dim=-1)
    divergence = (own.softmax(-1) * (own.log_softmax(-1) - coarse)).sum()
    (expected,) = torch.autograd.grad(divergence, learner)
    torch.testing.assert_close(found, expected)


def test_a_learner_that_is_sure_leaves_the_coarse_teacher_finite(translated: Translating) -> None:
    _, said = translated([["cat", "dog", "elk"], ["ant", "bee"]])
    for scale in (1e4, -1e4):
        learner = torch.zeros(3, 5, dtype=torch.float64)
        learner[:, 3] = scale
        voice = refined(said, Output(learner)).logits.softmax(-1)
        assert torch.isfinite(voice).all()
        assert voice.sum(-1).tolist() == pytest.approx([1.0] * 3)


def test_a_frozen_teacher_answers_in_the_students_classes() -> None:
    network = nn.Linear(4, 2)
    space = LabelSpace(covered(["cat", "ant"], NAMES), 5)
    inputs = torch.randn(3, 4)
    frozen = Ensemble([Frozen(network, [], space)])
    (said,) = frozen(Batch(inputs, torch.zeros(3), torch.arange(3)), START)
    direct = Translated(network, space)(inputs)
    assert torch.equal(said.logits, direct.logits)
    assert said.groups is not None
    assert not said.logits.requires_grad


class Served(list[Batch]):
    def train_dataloader(self) -> list[Batch]:
        return self

    def val_dataloader(self) -> list[Batch]:
        return self


def test_the_data_of_a_teacher_has_its_classes_only() -> None:
    target = torch.tensor([0, 3, UNLABELLED, 2, 4, 2])
    inputs = torch.arange(6.0)
    served = Served([Batch(inputs, target, torch.arange(6), target != UNLABELLED)])
    space = LabelSpace(covered(["dog", ["ant", "elk"]], NAMES), 5)
    data: Any = Relabelled(served, space)
    loader = data.train_dataloader()
    (batch,) = loader
    assert len(loader) == 1
    # The two cats give way to the first samples of the batch that are the teacher's.
    assert batch.inputs.tolist() == batch.index.tolist() == [0, 1, 2, 0, 4, 1]
    assert batch.target.tolist() == [1, 0, UNLABELLED, 1, 1, 0]
    assert batch.mask.tolist() == [True, True, False, True, True, True]
    (left,) = data.val_dataloader()
    assert left.index.tolist() == [0, 1, 2, 4]
    assert left.target.tolist() == [1, 0, UNLABELLED, 1]


def test_a_batch_without_any_sample_of_the_teacher_has_no_label() -> None:
    served = Served([Batch(torch.zeros(2), torch.tensor([2, 2]), torch.arange(2))])
    data: Any = Relabelled(served, LabelSpace(covered(["dog", "ant"], NAMES), 5))
    (batch,) = data.train_dataloader()
    assert batch.mask.tolist() == [False, False]
    assert batch.target.tolist() == [UNLABELLED] * 2

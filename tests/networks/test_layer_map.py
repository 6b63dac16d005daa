"""Blocks of a teacher as the initial weights of a student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ensemble_kd.networks import Bert
from ensemble_kd.networks.layer_map import Blocks, blocks_of, from_layers

WIDE = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "num_labels": 3}


def bert(layers: int, seed: int, width: int = 8, length: int = 9, classes: int = 3) -> Bert:
    torch.manual_seed(seed)
    network = Bert(30, [length], classes, layers=layers, width=width, heads=2, inner=12)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def published(layers: int) -> nn.Module:
    """A model with names of its own, which has embeddings for more places."""
    config = transformers.BertConfig(
        vocab_size=30, max_position_embeddings=16, num_hidden_layers=layers, **WIDE
    )
    model: nn.Module = transformers.BertForSequenceClassification(config)
    return model


def reference(
    student: dict[str, Tensor], teacher: dict[str, Tensor], layers: list[int], start: str
) -> dict[str, Tensor]:
    """The student's state afterwards, name by name."""
    after = dict(student)
    for name, value in student.items():
        source = name.replace("body.", start) if start else name
        source = source.replace("pooler.", f"{start}pooler.") if start != "body." else source
        for own, number in enumerate(layers):
            if name.startswith(f"body.encoder.layer.{own}."):
                source = f"{start}encoder.layer.{number}." + name.split(".", 4)[4]
        if source in teacher and teacher[source].shape == value.shape:
            after[name] = teacher[source]
    return after


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("layers", [[0, 2], [1, 3], [3, 0], [0, 1], [2, 2]])
@pytest.mark.parametrize("as_state", [False, True])
def test_the_chosen_layers_are_taken_over(layers: list[int], as_state: bool) -> None:
    student, teacher = bert(2, 0), bert(4, 1)
    before, given = copied(student), copied(teacher)
    left = from_layers(student, given if as_state else teacher, layers)
    assert left == ()
    expected = reference(before, given, layers, "body.")
    after = student.state_dict()
    assert all(torch.equal(after[name], expected[name]) for name in expected)
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])
    assert all(torch.equal(value, given[name]) for name, value in teacher.state_dict().items())


def test_they_are_copies() -> None:
    student, teacher = bert(2, 0), bert(4, 1)
    from_layers(student, teacher, [0, 2])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all((parameter != 0).any() for parameter in teacher.parameters())


def test_names_may_begin_differently_and_what_does_not_fit_is_listed() -> None:
    student, teacher = bert(2, 0), published(3)
    before, given = copied(student), copied(teacher)
    left = from_layers(student, teacher, [0, 2])
    assert left == ("body.embeddings.position_embeddings.weight",)
    expected = reference(before, given, [0, 2], "bert.")
    after = student.state_dict()
    assert all(torch.equal(after[name], expected[name]) for name in expected)
    assert torch.equal(after["pooler.dense.weight"], given["bert.pooler.dense.weight"])
    assert torch.equal(after[left[0]], before[left[0]])


def test_another_classifier_stays_as_it_is() -> None:
    student = bert(2, 0, classes=5)
    left = from_layers(student, bert(4, 1), [0, 2])
    assert left == ("classifier.weight", "classifier.bias")


def test_all_layers_of_a_network_of_the_same_depth() -> None:
    student, teacher = bert(3, 0), bert(3, 1)
    assert from_layers(student, teacher) == ()
    given = teacher.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in student.state_dict().items())


def test_a_student_of_one_layer() -> None:
    student, teacher = bert(1, 0), bert(4, 1)
    from_layers(student, teacher, [3])
    own, other = student.body.encoder.layer[0], teacher.body.encoder.layer[3]
    assert torch.equal(own.output.dense.weight, other.output.dense.weight)


def test_the_blocks_are_the_largest_list_of_equal_parts() -> None:
    blocks = [{"ffn": nn.ModuleList([nn.Linear(9, 9), nn.Linear(9, 9)])} for _ in range(3)]
    network = nn.ModuleDict(
        {
            "stem": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            "unlike": nn.Sequential(nn.Linear(99, 99), nn.LayerNorm(99), nn.Linear(9, 9, False)),
            "gap": nn.Sequential(nn.Linear(90, 90), nn.ReLU(), nn.Linear(90, 90)),
            "blocks": nn.ModuleList(map(nn.ModuleDict, blocks)),
        }
    )
    assert blocks_of(network.state_dict(), "student") == Blocks("blocks.", 3)
    assert blocks_of(network.state_dict(), "student", "stem") == Blocks("stem.", 2)
    assert blocks_of(network.state_dict(), "student", "1.ffn") == Blocks("blocks.1.ffn.", 2)
    whole = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert blocks_of(whole.state_dict(), "student") == Blocks("", 2)


def test_a_network_that_is_a_list_itself() -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    teacher = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])
    assert from_layers(student, teacher, [2, 0]) == ()
    own, other = student.state_dict(), teacher.state_dict()
    assert torch.equal(own["0.weight"], other["2.weight"])
    assert torch.equal(own["1.bias"], other["0.bias"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_layers(bert(2, 0), bert(4, 1)), "expected 2 numbers of the teacher's 4"),
        (
            lambda: from_layers(bert(2, 0), bert(4, 1), [0, 1, 2]),
            r"expected 2 numbers, one for each layer of the student, got \[0, 1, 2\]",
        ),
        (
            lambda: from_layers(bert(2, 0), bert(4, 1), [0, 4]),
            r"expected numbers from 0 to 3, .* got \[0, 4\]",
        ),
        (lambda: from_layers(bert(2, 0), bert(4, 1), [-1, 0]), "expected numbers from 0 to 3"),
        (
            lambda: from_layers(bert(2, 0), bert(4, 1, width=16), [0, 1]),
            r"expected layers of one size, got attention.self.query.weight \(8, 8\) in the "
            r"student and \(16, 16\) in the teacher",
        ),
        (
            lambda: from_layers(
                bert(2, 0), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), [0, 1]
            ),
            "the layers of the teacher hold no 'attention.self.query.weight' as those of the",
        ),
        (
            lambda: from_layers(nn.Linear(2, 2), bert(4, 1), [0]),
            "the student has no list of equal blocks$",
        ),
        (
            lambda: from_layers(bert(2, 0), nn.Linear(2, 2), [0, 1]),
            "the teacher has no list of equal blocks$",
        ),
        (
            lambda: from_layers(bert(2, 0), bert(4, 1), [0, 1], "blocks"),
            "the student has no list of equal blocks at a path that ends with 'blocks'",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^layers: {message}") as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_nothing_is_changed_when_something_does_not_fit() -> None:
    student = bert(2, 0)
    before = copied(student)
    with pytest.raises(ValueError, match="one size"):
        from_layers(student, bert(4, 1, width=16), [0, 1])
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())

"""FastBERT: its classifiers against loops, and that leaving early changes nothing but the work."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.export import constructor_of
from ensemble_kd.networks import EarlyExit
from ensemble_kd.networks.bert import Bert
from ensemble_kd.networks.early_exit import Exit, uncertainty
from ensemble_kd.types import Tokens

LENGTH, LAYERS, CLASSES = 9, 4, 3


def texts(count: int = 12, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LENGTH + 1, (count, 1), generator=generator)
    ids = torch.randint(30, (count, LENGTH), generator=generator)
    kinds = torch.randint(2, (count, LENGTH), generator=generator)
    return Tokens(ids, torch.arange(LENGTH) < lengths, kinds, torch.zeros(count, 1).byte())


def network(**settings: Any) -> EarlyExit:
    """In float64, with classifiers that disagree."""
    torch.manual_seed(4)
    sizes: dict[str, Any] = {"width": 16, "heads": 2, "inner": 24, "exit_width": 8}
    made = EarlyExit(30, [LENGTH], CLASSES, layers=LAYERS, **{**sizes, **settings}).double().eval()
    made.settled.fill_(True)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter))
    return made


def reference_exit(leave: Exit, states: Tensor, mask: Tensor) -> list[float]:
    """One text at a time, token by token, all tokens asking; then the first one's answer."""

    def linear(layer: nn.Linear, vector: list[float]) -> list[float]:
        rows = layer.weight.tolist()
        return [
            sum(w * v for w, v in zip(row, vector, strict=True)) + b
            for row, b in zip(rows, layer.bias.tolist(), strict=True)
        ]

    narrow = [[math.tanh(v) for v in linear(leave.narrow, state)] for state in states.tolist()]
    width = len(narrow[0]) // leave.heads
    answers = []
    for asking in range(len(narrow)):
        mixed: list[float] = []
        for head in range(leave.heads):
            part = slice(head * width, (head + 1) * width)
            query = linear(leave.query, narrow[asking])[part]
            scores, values = [], []
            for place, seen in enumerate(mask.tolist()):
                if seen:
                    key = linear(leave.key, narrow[place])[part]
                    dot = sum(q * k for q, k in zip(query, key, strict=True))
                    scores.append(math.exp(dot / math.sqrt(width)))
                    values.append(linear(leave.value, narrow[place])[part])
            shares = [score / sum(scores) for score in scores]
            mixed += [
                sum(share * value[place] for share, value in zip(shares, values, strict=True))
                for place in range(width)
            ]
        answers.append(linear(leave.mixed, mixed))
    dense = [math.tanh(v) for v in linear(leave.dense, answers[0])]
    return linear(leave.classifier, dense)


@pytest.mark.parametrize(("heads", "width"), [(1, 6), (2, 8), (4, 4)])
def test_a_classifier_is_that_of_the_paper(heads: int, width: int) -> None:
    torch.manual_seed(1)
    leave = Exit(10, width, heads, CLASSES, dropout=0.5).double().eval()
    states = torch.randn(5, 7, 10, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([1, 3, 7, 5, 2])[:, None]
    bias = torch.zeros(5, 1, 1, 7, dtype=torch.float64)
    bias.masked_fill_(~mask[:, None, None], torch.finfo(torch.float64).min)
    expected = [reference_exit(leave, s, m) for s, m in zip(states, mask, strict=True)]
    assert torch.allclose(leave(states, bias), torch.tensor(expected, dtype=torch.float64))


def test_its_body_is_that_of_bert() -> None:
    made = network()
    bert = Bert(30, [LENGTH], CLASSES, layers=LAYERS, width=16, heads=2, inner=24).double().eval()
    bert.body.load_state_dict(made.body.state_dict())
    states, _ = made.states(texts())
    assert len(states) == LAYERS
    assert torch.equal(states[-1], bert.body(texts()))


def test_it_answers_through_its_last_classifier() -> None:
    made, inputs = network(), texts()
    states, bias = made.states(inputs)
    assert torch.equal(made(inputs), made.exits[-1](states[-1], bias))
    for layers in range(1, LAYERS + 1):
        expected = made.exits[layers - 1](states[layers - 1], bias)
        assert torch.equal(made.through(inputs, layers), expected)


def reference_early(made: EarlyExit, inputs: Tokens, speed: float) -> tuple[Tensor, list[int]]:
    """Text by text: the first classifier whose normalised entropy is below the speed."""
    rows, layers = [], []
    for row in range(len(inputs.ids)):
        alone = Tokens(*(part[row : row + 1] for part in inputs))
        for number in range(1, LAYERS + 1):
            said = made.through(alone, number)[0]
            shares = [math.exp(z) for z in said.tolist()]
            entropy = -sum(s / sum(shares) * math.log(s / sum(shares)) for s in shares)
            if entropy / math.log(CLASSES) < speed or number == LAYERS:
                rows.append(said)
                layers.append(number)
                break
    return torch.stack(rows), layers


@pytest.mark.parametrize("speed", [0.0, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_each_text_leaves_through_the_first_classifier_that_is_sure(speed: float) -> None:
    made, inputs = network(speed=speed), texts(40)
    expected, layers = reference_early(made, inputs, speed)
    found = made.early(inputs)
    assert found.layers.tolist() == layers
    assert torch.allclose(found.logits, expected, atol=1e-12)
    assert torch.allclose(made(inputs), expected, atol=1e-12)


def test_these_texts_leave_at_all_places() -> None:
    made, inputs = network(), texts(40)
    assert set(reference_early(made, inputs, 0.5)[1]) == set(range(1, LAYERS + 1))
    assert set(reference_early(made, inputs, 0.0)[1]) == {LAYERS}
    assert set(reference_early(made, inputs, 1.0)[1]) == {1}


def test_later_blocks_are_run_for_those_who_stay_only() -> None:
    made, inputs = network(speed=0.5), texts(40)
    seen: list[int] = []
    for block in made.body.encoder.layer:
        block.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    layers = made.early(inputs).layers
    assert seen == [int((layers > number).sum()) for number in range(LAYERS)]
    assert seen[0] == 40
    assert 0 < seen[-1] < seen[1]
    made.speed = 1.0
    seen.clear()
    made(inputs)
    assert seen == [40]


def test_while_it_is_trained_all_texts_go_through_all_blocks() -> None:
    made, inputs = network(speed=1.0, dropout=0.0), texts()
    early = made(inputs)
    assert torch.equal(made.train()(inputs), made.through(inputs, LAYERS))
    made.eval()
    assert not torch.equal(early, made.through(inputs, LAYERS))


def test_no_text_leaves_through_classifiers_that_did_not_learn() -> None:
    made, inputs = network(speed=1.0), texts()
    assert not torch.equal(made(inputs), made.through(inputs, LAYERS))
    made.train()(inputs)  # the others no longer fit the blocks
    made.eval()
    assert torch.equal(made(inputs), made.through(inputs, LAYERS))
    sizes: dict[str, Any] = {"width": 16, "heads": 2, "inner": 24, "exit_width": 8}
    fresh = EarlyExit(30, [LENGTH], CLASSES, layers=LAYERS, speed=1.0, **sizes).eval()
    assert torch.equal(fresh(inputs), fresh.through(inputs, LAYERS))
    fresh.load_state_dict(network().state_dict())
    assert fresh.settled  # it is kept with the weights


def test_it_says_why_it_cannot_be_exported() -> None:
    assert network(speed=0.0).unexportable is None
    made = network(speed=0.5)
    assert made.unexportable == "texts leave it early, with speed=0.5; only with speed=0 it can"
    made.settled.fill_(False)
    assert made.unexportable is None


def test_uncertainty_is_the_normalised_entropy() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, -1e4], [0.0, math.log(3.0), -1e4]])
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(3)
    assert uncertainty(logits).tolist() == pytest.approx([1.0, 0.0, quarter])
    assert uncertainty(logits.half()).dtype == torch.float32


def test_it_can_be_exported_where_nothing_depends_on_the_texts() -> None:
    made = network().float()
    inputs = texts(4)
    program = torch.export.export(made, (inputs,), strict=False)
    assert torch.allclose(program.module()(inputs), made(inputs), atol=1e-6)


def test_it_can_be_made_anew_from_its_attributes() -> None:
    node = constructor_of(network(speed=0.25).float())
    assert node is not None
    assert node["speed"] == 0.25
    assert node["exit_width"] == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"speed": 1.5}, r"speed must be in \[0, 1\], got 1.5"),
        ({"exit_width": 7}, "exit_width must be a multiple of heads = 2, got 7"),
        ({"exit_heads": 0}, "exit_heads must be >= 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        network(**settings)

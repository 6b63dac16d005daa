"""What all comparisons of tokens have in common: padding is no part of a text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.objectives import (
    Cosine,
    Hint,
    Matched,
    MiniLm,
    MobileBertAttention,
    MobileBertStates,
    TinyBertAttention,
    TinyBertStates,
)
from ensemble_kd.objectives.comparison import Comparison, JointComparison
from ensemble_kd.types import Output, Progress

MASKED: dict[str, tuple[Callable[[], Comparison | JointComparison], list[int], list[int]]] = {
    "tinybert attention": (lambda: TinyBertAttention(2), [4] * 4, [6] * 4),
    "tinybert states": (TinyBertStates, [3, 4, 4], [5, 6, 6]),
    "minilm": (lambda: MiniLm(2), [4] * 3, [6] * 3),
    "mobilebert states": (MobileBertStates, [4, 5], [4, 5]),
    "mobilebert attention": (lambda: MobileBertAttention(2), [4] * 4, [6] * 4),
    "cosine": (Cosine, [4, 5], [4, 5]),
}
every = pytest.mark.parametrize("name", MASKED)
CaseOf = Callable[[str, list[int]], tuple[Any, Matched]]


@pytest.fixture
def case_of(reading: Any) -> CaseOf:
    """Features of texts of some lengths, and what a comparison makes of them."""

    def made(name: str, lengths: list[int]) -> tuple[Any, Matched]:
        comparison, own, other = MASKED[name]
        torch.manual_seed(0)
        case = reading.case(lengths, own, other)
        return case, case.matched(comparison())

    return made


@every
@pytest.mark.parametrize("rubbish", [0.0, 1e3, math.inf, math.nan])
def test_what_stands_at_padding_does_not_matter(case_of: CaseOf, name: str, rubbish: float) -> None:
    case, matched = case_of(name, [5, 2, 1])
    expected = case.values(matched)
    gradients = torch.autograd.grad(expected.sum(), case.own)
    padding = ~case.batch.inputs.mask.unsqueeze(2)
    case.own = [torch.where(padding, rubbish, f.detach()).requires_grad_() for f in case.own]
    case.other = [torch.where(padding, rubbish, feature) for feature in case.other]
    values = case.values(matched)
    assert torch.equal(values, expected)
    for found, known in zip(torch.autograd.grad(values.sum(), case.own), gradients, strict=True):
        assert torch.equal(found, known)
        assert (found[padding.expand_as(found)] == 0).all()


@every
def test_every_token_receives_gradient_and_no_teacher(case_of: CaseOf, name: str) -> None:
    case, matched = case_of(name, [5, 2, 3])
    for feature in case.other:
        feature.requires_grad_(False)
    case.values(matched).sum().backward()
    mask = case.batch.inputs.mask
    for feature in case.own:
        assert feature.grad is not None
        assert (feature.grad.abs().sum(dim=2) > 0)[mask].all()
    for parameter in matched.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).any()
    learned = [path for path, _ in matched.named_parameters()]
    assert bool(learned) == (name == "tinybert states")


@every
def test_the_gradient_is_that_of_the_value(case_of: CaseOf, name: str) -> None:
    case, matched = case_of(name, [3, 1])

    def total(*features: Tensor) -> Any:
        case.own = list(features)
        return case.values(matched).sum()

    assert torch.autograd.gradcheck(total, tuple(case.own), atol=1e-6)


@every
def test_a_text_is_worth_the_same_among_longer_ones(
    case_of: CaseOf, reading: Any, name: str
) -> None:
    case, matched = case_of(name, [5, 2])
    together = case.values(matched)
    case.batch, case.lengths = reading.texts([2], 2), [2]
    case.own = [feature[1:, :2] for feature in case.own]
    case.other = [feature[1:, :2] for feature in case.other]
    torch.testing.assert_close(case.values(matched), together[1:])


@every
def test_a_text_without_tokens_counts_nothing(case_of: CaseOf, name: str) -> None:
    case, matched = case_of(name, [0, 2])
    values = case.values(matched)
    assert values[0] == 0
    values.sum().backward()
    assert all(
        torch.isfinite(feature.grad).all() for feature in case.own if feature.grad is not None
    )


@every
def test_inputs_that_are_no_texts_have_no_padding(case_of: CaseOf, name: str) -> None:
    case, matched = case_of(name, [5, 5])
    expected = case.values(matched)
    case.batch = case.batch._replace(inputs=torch.zeros(2, 3, 8, 8))
    assert torch.equal(case.values(matched), expected)


# The matrices of the other one would have to be the identity.
@pytest.mark.parametrize("name", [name for name in MASKED if name != "tinybert states"])
def test_equal_networks_are_at_distance_zero(case_of: CaseOf, name: str) -> None:
    case, _ = case_of(name, [5, 2])
    case.other = [feature.detach() for feature in case.own]
    values = case.values(case.matched(MASKED[name][0]()))
    assert values.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_features_of_other_tokens_are_refused(case_of: CaseOf, reading: Any) -> None:
    case, matched = case_of("cosine", [3, 2])
    case.batch = reading.texts([3, 2], 4)
    with pytest.raises(ValueError, match="features must have the 4 tokens of the inputs, got 5"):
        case.values(matched)


def test_comparisons_of_whole_samples_see_no_mask(reading: Any) -> None:
    said = Output(torch.zeros(2, 2), {"a": torch.randn(2, 5, 4)})
    matched = Matched(Hint(), ["a"], ["a"])
    matched.meet(said, (said,))
    start = Progress(0, 0, 0.0)
    assert matched(said, (said,), torch.ones(1, 2), reading.texts([5, 2]), start).shape == (2,)

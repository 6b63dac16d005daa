"""What is matched between networks that read texts, against the equations, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ensemble_kd.config import compose
from ensemble_kd.engine import Engine
from ensemble_kd.objectives import (
    Cosine,
    Hint,
    Matched,
    MiniLm,
    MobileBertAttention,
    MobileBertStates,
    Pkd,
    Term,
    TinyBertAttention,
    TinyBertStates,
)
from ensemble_kd.objectives.comparison import Comparison, JointComparison
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress, Tokens

START = Progress(0, 0, 0.0)
LENGTHS = [[3], [5, 1, 3], [4, 4], [5, 2, 1, 4]]
Rows = list[list[float]]


def texts(lengths: Sequence[int], longest: int = 5) -> Batch:
    """A batch of texts of these lengths, padded to five tokens."""
    shape = (len(lengths), longest)
    ids = torch.zeros(shape, dtype=torch.int64)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    tokens = Tokens(ids, mask, ids, torch.zeros(len(lengths), 1, dtype=torch.uint8))
    return Batch(tokens, torch.zeros(len(lengths), dtype=torch.int64), torch.arange(len(lengths)))


def states(seed: int, samples: int, width: int, longest: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, longest, width, generator=generator, dtype=torch.float64)


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / math.fsum(powers) for power in powers]


def kl(target: list[float], said: list[float]) -> float:
    return math.fsum(t * math.log(t / p) for t, p in zip(target, said, strict=True))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def part(rows: Rows, head: int, heads: int) -> Rows:
    """The dimensions of one head."""
    size = len(rows[0]) // heads
    return [row[head * size : (head + 1) * size] for row in rows]


def products(queries: Rows, keys: Rows) -> Rows:
    size = len(queries[0])
    return [
        [math.fsum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(size) for k in keys]
        for q in queries
    ]


def times(row: list[float], matrix: Tensor) -> list[float]:
    """A row times a matrix W (own, other), given as PyTorch keeps it, (other, own)."""
    return [
        math.fsum(a * b for a, b in zip(row, column, strict=True)) for column in matrix.tolist()
    ]


# The equations, each for one text: its features without padding.


def reference_tinybert_attention(own: list[Rows], other: list[Rows], heads: int) -> float:
    total = 0.0
    for layer in range(0, len(own), 2):
        squares = []
        for head in range(heads):
            s, t = (
                products(part(f[layer], head, heads), part(f[layer + 1], head, heads))
                for f in (own, other)
            )
            squares += [
                (a - b) ** 2
                for row, column in zip(s, t, strict=True)
                for a, b in zip(row, column, strict=True)
            ]
        total += mean(squares)
    return total


def reference_mobilebert_attention(own: list[Rows], other: list[Rows], heads: int) -> float:
    total = 0.0
    for layer in range(0, len(own), 2):
        apart = []
        for head in range(heads):
            s, t = (
                products(part(f[layer], head, heads), part(f[layer + 1], head, heads))
                for f in (own, other)
            )
            apart += [kl(softmax(b), softmax(a)) for a, b in zip(s, t, strict=True)]
        total += mean(apart)
    return total


def reference_minilm(
    own: list[Rows], other: list[Rows], heads: int, weights: Sequence[float]
) -> float:
    total = 0.0
    for number, (mine, theirs) in enumerate(zip(own, other, strict=True)):
        apart = []
        for head in range(heads):
            s, t = part(mine, head, heads), part(theirs, head, heads)
            relations = zip(products(s, s), products(t, t), strict=True)
            apart += [kl(softmax(b), softmax(a)) for a, b in relations]
        total += weights[number % 3] / sum(weights) * mean(apart)
    return total


def reference_tinybert_states(own: list[Rows], other: list[Rows], matrices: list[Tensor]) -> float:
    total = 0.0
    for layer, (mine, theirs) in enumerate(zip(own, other, strict=True)):
        total += reference_mobilebert_states(
            [times(row, matrices[min(layer, 1)]) for row in mine], theirs
        )
    return total


def reference_mobilebert_states(own: Rows, other: Rows) -> float:
    pairs = zip(own, other, strict=True)
    return mean([(a - b) ** 2 for s, t in pairs for a, b in zip(s, t, strict=True)])


def cosine(own: list[float], other: list[float]) -> float:
    product = math.fsum(a * b for a, b in zip(own, other, strict=True))
    return product / math.hypot(*own) / math.hypot(*other)


def reference_cosine(own: Rows, other: Rows) -> float:
    return mean([1 - cosine(s, t) for s, t in zip(own, other, strict=True)])


# The features of a batch, and what a comparison makes of them.


class Case:
    """Features of a student and a teacher at some layers, padding included."""

    def __init__(self, lengths: list[int], own: Sequence[int], other: Sequence[int]) -> None:
        self.batch, self.lengths = texts(lengths), lengths
        count = len(lengths)
        self.own = [states(10 + n, count, width).requires_grad_() for n, width in enumerate(own)]
        self.other = [states(50 + n, count, width) for n, width in enumerate(other)]

    def matched(self, comparison: Comparison | JointComparison) -> Matched:
        taps = [str(number) for number in range(len(self.own))]
        matched = Matched(comparison, taps, taps).double()
        matched.meet(self.said(self.own), (self.said(self.other),))
        return matched.double()

    def values(self, matched: Matched) -> Tensor:
        weights = torch.ones(1, len(self.lengths), dtype=torch.float64)
        own, other = self.said(self.own), (self.said(self.other),)
        values: Tensor = matched(own, other, weights, self.batch, START)
        return values

    def said(self, features: list[Tensor]) -> Output:
        logits = torch.zeros(len(self.lengths), 2, dtype=torch.float64)
        return Output(logits, {str(number): each for number, each in enumerate(features)})

    def rows(self) -> list[tuple[list[Rows], list[Rows]]]:
        """For each text the features of both networks at its tokens."""
        return [
            (
                [f[i, :length].tolist() for f in self.own],
                [f[i, :length].tolist() for f in self.other],
            )
            for i, length in enumerate(self.lengths)
        ]


def matrices(matched: Matched) -> list[Tensor]:
    return [p.detach() for p in matched.pairs.parameters()]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("widths", [(4, 4), (4, 6)], ids=str)
def test_attention_is_the_papers_equation(
    lengths: list[int], heads: int, layers: int, widths: tuple[int, int]
) -> None:
    case = Case(lengths, [widths[0]] * 2 * layers, [widths[1]] * 2 * layers)
    values = case.values(case.matched(TinyBertAttention(heads)))
    expected = [reference_tinybert_attention(*rows, heads) for rows in case.rows()]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)
    values = case.values(case.matched(MobileBertAttention(heads)))
    expected = [reference_mobilebert_attention(*rows, heads) for rows in case.rows()]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("weights", [(1, 1, 1), (0.5, 0, 2)], ids=str)
@pytest.mark.parametrize("layers", [1, 2])
def test_relations_are_the_papers_equation(
    lengths: list[int], heads: int, weights: tuple[float, ...], layers: int
) -> None:
    case = Case(lengths, [6] * 3 * layers, [3] * 3 * layers)
    values = case.values(case.matched(MiniLm(heads, weights)))
    expected = [reference_minilm(*rows, heads, weights) for rows in case.rows()]
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("widths", [([4], [4]), ([3, 4], [5, 6]), ([4] * 4, [7] * 4)], ids=str)
def test_states_behind_matrices_are_the_papers_equation(
    lengths: list[int], widths: tuple[list[int], list[int]]
) -> None:
    case = Case(lengths, *widths)
    matched = case.matched(TinyBertStates())
    assert len(matrices(matched)) == min(len(widths[0]), 2)
    expected = [reference_tinybert_states(*rows, matrices(matched)) for rows in case.rows()]
    assert case.values(matched).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("layers", [1, 3])
def test_states_and_their_directions_are_the_papers_equations(
    lengths: list[int], layers: int
) -> None:
    case = Case(lengths, [4] * layers, [4] * layers)
    for comparison, reference in (
        (MobileBertStates(), reference_mobilebert_states),
        (Cosine(), reference_cosine),
    ):
        values = case.values(case.matched(comparison))
        expected = [
            math.fsum(reference(s, t) for s, t in zip(*rows, strict=True)) for rows in case.rows()
        ]
        assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_first_tokens_are_the_papers_equation(samples: int, width: int, layers: int) -> None:
    case = Case([3] * samples, [width] * layers, [width] * layers)
    case.own = [feature[:, 0].detach() for feature in case.own]
    case.other = [feature[:, 0] for feature in case.other]
    expected = []
    for i in range(samples):
        total = 0.0
        for s, t in zip(case.own, case.other, strict=True):
            own, other = s[i].tolist(), t[i].tolist()
            scaled = zip(own, other, strict=True)
            total += sum((a / math.hypot(*own) - b / math.hypot(*other)) ** 2 for a, b in scaled)
        expected.append(total)
    assert case.values(case.matched(Pkd())).tolist() == pytest.approx(expected, rel=1e-9)


MASKED: dict[str, tuple[Callable[[], Comparison | JointComparison], list[int], list[int]]] = {
    "tinybert attention": (lambda: TinyBertAttention(2), [4] * 4, [6] * 4),
    "tinybert states": (TinyBertStates, [3, 4, 4], [5, 6, 6]),
    "minilm": (lambda: MiniLm(2), [4] * 3, [6] * 3),
    "mobilebert states": (MobileBertStates, [4, 5], [4, 5]),
    "mobilebert attention": (lambda: MobileBertAttention(2), [4] * 4, [6] * 4),
    "cosine": (Cosine, [4, 5], [4, 5]),
}
every = pytest.mark.parametrize("name", MASKED)


def case_of(name: str, lengths: list[int]) -> tuple[Case, Matched]:
    comparison, own, other = MASKED[name]
    torch.manual_seed(0)
    case = Case(lengths, own, other)
    return case, case.matched(comparison())


@every
@pytest.mark.parametrize("rubbish", [0.0, 1e3, math.inf, math.nan])
def test_what_stands_at_padding_does_not_matter(name: str, rubbish: float) -> None:
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
def test_every_token_receives_gradient_and_no_teacher(name: str) -> None:
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
def test_the_gradient_is_that_of_the_value(name: str) -> None:
    case, matched = case_of(name, [3, 1])

    def total(*features: Tensor) -> Tensor:
        case.own = list(features)
        return case.values(matched).sum()

    assert torch.autograd.gradcheck(total, tuple(case.own), atol=1e-6)


@every
def test_a_text_is_worth_the_same_among_longer_ones(name: str) -> None:
    case, matched = case_of(name, [5, 2])
    together = case.values(matched)
    case.batch, case.lengths = texts([2], 2), [2]
    case.own = [feature[1:, :2] for feature in case.own]
    case.other = [feature[1:, :2] for feature in case.other]
    torch.testing.assert_close(case.values(matched), together[1:])


@every
def test_a_text_without_tokens_counts_nothing(name: str) -> None:
    case, matched = case_of(name, [0, 2])
    values = case.values(matched)
    assert values[0] == 0
    values.sum().backward()
    assert all(
        torch.isfinite(feature.grad).all() for feature in case.own if feature.grad is not None
    )


@every
def test_inputs_that_are_no_texts_have_no_padding(name: str) -> None:
    case, matched = case_of(name, [5, 5])
    expected = case.values(matched)
    case.batch = case.batch._replace(inputs=torch.zeros(2, 3, 8, 8))
    assert torch.equal(case.values(matched), expected)


# The matrices of the other one would have to be the identity.
@pytest.mark.parametrize("name", [name for name in MASKED if name != "tinybert states"])
def test_equal_networks_are_at_distance_zero(name: str) -> None:
    case, _ = case_of(name, [5, 2])
    case.other = [feature.detach() for feature in case.own]
    values = case.values(case.matched(MASKED[name][0]()))
    assert values.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_a_shift_of_the_keys_is_seen_before_the_softmax_only() -> None:
    case = Case([4, 2], [4, 4], [4, 4])
    query, key = (feature.detach() for feature in case.own)
    case.other, case.own = [query, key + 1.0], [query, key]
    assert case.values(case.matched(MobileBertAttention(2))).tolist() == pytest.approx([0, 0])
    assert (case.values(case.matched(TinyBertAttention(2))) > 1e-3).all()


def test_teachers_are_weighted_and_have_matrices_of_their_own() -> None:
    batch = texts([5, 3])
    student = Output(torch.zeros(2, 2), {"a": states(0, 2, 4), "b": states(1, 2, 4)})
    taught = tuple(
        Output(torch.zeros(2, 2), {"x": states(2 + k, 2, 3 + k), "y": states(5 + k, 2, 6 + k)})
        for k in range(2)
    )
    matched = Matched(TinyBertStates(), ["a", "b"], ["x", "y"])
    matched.meet(student, taught)
    matched.double()
    alone = []
    for number in range(2):
        weights = torch.zeros(2, 2, dtype=torch.float64)
        weights[number] = 1.0
        alone.append(matched(student, taught, weights, batch, START))
    weights = torch.tensor([[0.25, 1.0], [0.75, 0.0]], dtype=torch.float64)
    values = matched(student, taught, weights, batch, START)
    torch.testing.assert_close(values, weights[0] * alone[0] + weights[1] * alone[1])
    shapes = [tuple(parameter.shape) for parameter in matched.parameters()]
    assert shapes == [(3, 4), (6, 4), (4, 4), (7, 4)]


@pytest.mark.parametrize("with_places", [True, False])
def test_weights_of_tokens_are_averaged_over_the_places_of_a_sample(with_places: bool) -> None:
    batch = texts([5, 3])
    places = torch.zeros(2, 5, dtype=torch.bool)
    places[0, [1, 3]] = True
    target = torch.full((2, 5), UNLABELLED)
    batch = batch._replace(target=target, places=places if with_places else None)
    student = Output(torch.zeros(2, 5, 2), {"a": states(0, 2, 4)})
    taught = tuple(Output(torch.zeros(2, 5, 2), {"a": states(1 + k, 2, 4)}) for k in range(2))
    weights = torch.rand(2, 2, 5, dtype=torch.float64)
    weights = weights / weights.sum(dim=0)
    matched = Matched(Cosine(), ["a"], ["a"])
    matched.meet(student, taught)
    values = matched(student, taught, weights, batch, START)
    counted = [[1, 3], list(range(5))] if with_places else [list(range(5))] * 2
    expected = []
    for i, length in enumerate([5, 3]):
        own = student.features["a"][i, :length].tolist()
        distances = [reference_cosine(own, t.features["a"][i, :length].tolist()) for t in taught]
        shares = [mean([float(weights[k, i, p]) for p in counted[i]]) for k in range(2)]
        expected.append(sum(w * d for w, d in zip(shares, distances, strict=True)))
    assert values.tolist() == pytest.approx(expected)
    term = Term(matched)(student, taught, weights, batch, START)
    assert float(term) == pytest.approx(mean(expected))


def tensor(*shape: int) -> Tensor:
    return torch.randn(2, *shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TinyBertAttention(0), "heads must be >= 1, got 0"),
        (lambda: MobileBertAttention(-1), "heads must be >= 1, got -1"),
        (lambda: MiniLm(0), "heads must be >= 1, got 0"),
        (lambda: MiniLm(2, [1, 1]), r"weights must be three numbers >= 0, not all 0, got \[1, 1\]"),
        (lambda: MiniLm(2, [0, 0, 0]), "weights must be three numbers >= 0, not all 0"),
        (lambda: MiniLm(2, [1, -1, 1]), "weights must be three numbers >= 0, not all 0"),
        (lambda: MiniLm(2, [1, math.nan, 1]), "weights must be three numbers >= 0, not all 0"),
        (
            lambda: TinyBertAttention(2).across([tensor(3, 4)] * 3, [tensor(3, 4)] * 3),
            "layers must be named as query, key for each pair, .*got 3 of the student and 3",
        ),
        (
            lambda: MiniLm(2).across([tensor(3, 4)] * 3, [tensor(3, 4)] * 6),
            "layers must be named as query, key, value for each pair, .*got 3 .* and 6 of a",
        ),
        (
            lambda: MobileBertAttention(3).across([tensor(3, 4)] * 2, [tensor(3, 6)] * 2),
            r"heads must divide the width of all features, got 3 heads and a feature \(3, 4\)",
        ),
        (
            lambda: MiniLm(4).across([tensor(3, 4)] * 3, [tensor(3, 6)] * 3),
            r"heads must divide the width of all features, got 4 heads and a feature \(3, 6\)",
        ),
        (
            lambda: TinyBertStates().across([tensor(3, 4)], [tensor(5, 4)]),
            r"sequences \(l, d\) of one length, got \(3, 4\) of the student and \(5, 4\) of a",
        ),
        (
            lambda: TinyBertStates().across(
                [tensor(3, 2), tensor(3, 4), tensor(3, 5)], [tensor(3, 4)] * 3
            ),
            "share a matrix and must be of one width, got 4, 5 of the student and 4, 4 of a",
        ),
        (
            lambda: MobileBertStates().between(tensor(3, 4), tensor(3, 5)),
            r"sequences \(l, d\) of one length and width, got \(3, 4\) .* and \(3, 5\)",
        ),
        (lambda: Cosine().between(tensor(4), tensor(4)), r"sequences \(l, d\) of one length and"),
        (
            lambda: Pkd().between(tensor(3, 4), tensor(3, 4)),
            r"vectors \(d,\) of one width, taken with .first, got \(3, 4\) of the student",
        ),
        (lambda: Pkd().between(tensor(4), tensor(5)), r"vectors .* got \(4,\) .* and \(5,\)"),
        (
            lambda: Matched(Cosine(), ["a"], ["a"], balance="variance"),
            "balance must be null for Cosine, which leaves padding out, got 'variance'",
        ),
        (
            lambda: Matched(MiniLm(1), ["a"], ["a"], factors=[1.0]),
            "factors must be null where layers are compared jointly",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_features_of_other_tokens_are_refused() -> None:
    case, matched = case_of("cosine", [3, 2])
    case.batch = texts([3, 2], 4)
    with pytest.raises(ValueError, match="features must have the 4 tokens of the inputs, got 5"):
        case.values(matched)


def test_comparisons_of_whole_samples_see_no_mask() -> None:
    batch = texts([5, 2])
    said = Output(torch.zeros(2, 2), {"a": torch.randn(2, 5, 4)})
    matched = Matched(Hint(), ["a"], ["a"])
    matched.meet(said, (said,))
    assert matched(said, (said,), torch.ones(1, 2), batch, START).shape == (2,)


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
@pytest.mark.parametrize(
    ("objective", "weighting"), [("tinybert", "entropy"), ("minilm", "uniform"), ("pkd", "learned")]
)
def test_features_of_texts_with_a_class_per_token(
    objective: str, weighting: str, text_root: Path
) -> None:
    overrides = [
        "data=wnut17",
        "data.tokenizer.size=60",
        "data.length=12",
        f"paths.data={text_root}",
        "student=bert_tiny",
        "teacher.members=[bert_mini,bert_mini]",
        f"objective={objective}",
        f"weighting={weighting}",
        "epochs=1",
        "teacher.epochs=1",
        "batch_size=16",
        "control=false",
        "+trainer.limit_train_batches=2",
        "+trainer.limit_val_batches=0",
    ]
    plan = make_plan(compose(overrides))
    products = Engine(plan, Store(Path("store")), Path("run"), logger=False).products()
    for parameter in products["student"].learner.deliverable().parameters():
        assert torch.isfinite(parameter).all()

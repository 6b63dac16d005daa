"""What proxies cost and what they decide, against naive references on made-up tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ensemble_kd.errors import UserError
from ensemble_kd.strategies.assistant_candidates import Candidate
from ensemble_kd.strategies.proxies import Budget, Path, affordable, best, gains, noise

A, B, C = (
    Candidate(name, size, size, {"_target_": name})
    for name, size in (("a", 10), ("b", 30), ("c", 70))
)


def reference_choice(table: list[list[float]]) -> int | None:
    """The row with the greatest mean, if above 0 and two pooled standard errors."""
    seeds = len(table[0])
    means = []
    variances = []
    for row in table:
        mean = sum(row) / seeds
        means.append(mean)
        variances.append(sum((gain - mean) ** 2 for gain in row) / (seeds - 1))
    error = math.sqrt(sum(variances) / len(variances)) / math.sqrt(seeds)
    first = 0
    for number in range(len(table)):
        if means[number] > means[first]:
            first = number
    return first if means[first] > 0 and means[first] > 2 * error else None


def chosen(table: list[list[float]]) -> int | None:
    paths: dict[Path, list[float]] = {
        (candidate,): row for candidate, row in zip((A, B, C), table, strict=False)
    }
    found = best(paths)
    return None if found is None else list(paths).index(found)


@pytest.mark.parametrize(
    ("table", "answer"),
    [
        ([[0.03, 0.04]], 0),  # helps
        ([[-0.03, -0.04]], None),  # harms
        ([[0.0, 0.0]], None),  # a tie
        ([[0.05, -0.01]], None),  # one seed worse: the spread is larger than the gain
        ([[0.05, 0.06, -0.01, 0.05, 0.06, 0.05]], 0),  # one of many
        ([[0.01, 0.01], [0.02, 0.02]], 1),  # the one that gains more
        ([[0.02, 0.02], [0.02, 0.02]], 0),  # the first of equal ones
        ([[0.02, 0.03], [0.1, -0.1]], None),  # the spread of the other counts too
    ],
)
def test_what_is_proposed(table: list[list[float]], answer: int | None) -> None:
    assert chosen(table) == answer == reference_choice(table)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_decision_is_that_of_the_reference(rows: int, seeds: int) -> None:
    rng = np.random.default_rng(rows * 10 + seeds)
    tables = [(rng.normal(0.3, 1, (rows, seeds))).tolist() for _ in range(100)]
    answers = [chosen(table) for table in tables]
    assert answers == [reference_choice(table) for table in tables]
    assert {each is None for each in answers} == {True, False}


@pytest.mark.parametrize(("rows", "at_most"), [(1, 0.17), (3, 0.19)])
def test_how_often_noise_alone_proposes_something(rows: int, at_most: float) -> None:
    rng = np.random.default_rng(rows)
    found = 0
    for _ in range(3000):
        direct = rng.normal(size=2)
        found += (
            chosen([gains(list(rng.normal(size=2)), list(direct)) for _ in range(rows)]) is not None
        )
    assert 0.1 < found / 3000 < at_most


def test_the_noise_needs_gains_paired_by_seed() -> None:
    # What a seed does to all paths is no noise of their differences.
    assert gains([0.5, 0.9], [0.25, 0.65]) == pytest.approx([0.25, 0.25])
    assert noise([gains([0.5, 0.9], [0.25, 0.65])]) == pytest.approx(0)
    with pytest.raises(ValueError, match="zip"):
        gains([0.5, 0.9], [0.5])


def reference_cost(paths: list[tuple[Candidate, ...]], epochs: int, seeds: int) -> int:
    """Epochs times multiply-adds of every training, each once; a student has 7."""
    trained = set()
    for path in paths:
        before = ""
        for candidate in path:
            trained.add((before, candidate.name, candidate.multiply_adds))
            before += f">{candidate.name}"
        trained.add((before, "student", 7))
    return sum(size * epochs * seeds for _, _, size in trained)


@pytest.mark.parametrize("paths", [[()], [(), (A,)], [(A,), (B,), (B, A)], [(C, B), (C, A), (C,)]])
@pytest.mark.parametrize("seeds", [2, 3])
def test_what_proxies_cost(paths: list[tuple[Candidate, ...]], seeds: int) -> None:
    budget = Budget(share=0.5, epochs=200, multiply_adds=7, seeds=seeds)
    whole = 200 * 7
    assert budget.cost(paths, 3) == pytest.approx(reference_cost(paths, 3, seeds) / whole)
    rest = reference_cost(paths, 3, seeds) - reference_cost(paths[:1], 3, seeds)
    assert budget.cost(paths, 3, done=paths[:1]) == pytest.approx(rest / whole)
    longest = budget.longest(paths)
    assert reference_cost(paths, longest, seeds) <= 0.5 * whole
    assert reference_cost(paths, longest + 1, seeds) > 0.5 * whole


def test_proxies_are_no_longer_than_the_run() -> None:
    assert Budget(share=1e6, epochs=40, multiply_adds=7, seeds=2).longest([(), (A,)]) == 40


@pytest.mark.parametrize(
    ("share", "kept", "epochs"),
    # One epoch of (), (a), (b), (c) costs 2 * (7 + 17 + 37 + 77) = 276 of 100 * 7, and two are
    # the fewest that say something of 100.
    [(552 / 700, "abc", 2), (551 / 700, "ab", 4), (0.2, "a", 2), (100.0, "abc", 100)],
)
def test_the_dearest_candidates_are_left_out(share: float, kept: str, epochs: int) -> None:
    budget = Budget(share=share, epochs=100, multiply_adds=7, seeds=2)
    tried, for_epochs, left_out = affordable([A, B, C], budget, None)
    assert "".join(each.name for each in tried) == kept
    assert for_epochs == epochs
    assert "".join(each.name for each in left_out) == "abc"[len(kept) :]
    assert all(
        "all 3 candidates, in proxies of 2 epochs, take 0.79" in each.reason for each in left_out
    )


def test_a_budget_that_allows_nothing_says_what_it_would_take() -> None:
    budget = Budget(share=0.1, epochs=100, multiply_adds=7, seeds=2)
    with pytest.raises(UserError, match=r"^strategy\.budget: expected at least 0.14 for 2 proxies"):
        affordable([A, B, C], budget, None)
    with pytest.raises(
        UserError, match=r"at least 0\.35 .* of 5 epochs of the direct path and of a"
    ):
        affordable([A, B, C], budget, 5)

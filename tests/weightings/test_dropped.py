from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ensemble_kd.weightings import Dropped


def reference_probabilities(members: int, p: float) -> dict[tuple[bool, ...], float]:
    """Of each set of kept teachers: independent choices, and nobody becomes anybody."""
    nobody = (1 - p) ** members
    result = {}
    for kept in itertools.product((False, True), repeat=members):
        size = sum(kept)
        if size:
            chance = p**size * (1 - p) ** (members - size)
            result[kept] = chance + (nobody / members if size == 1 else 0)
    return result


@pytest.mark.parametrize("p", [0.0, 0.3, 0.75, 1.0])
def test_each_set_is_as_likely_as_it_should_be(situation: Callable[..., Any], p: float) -> None:
    weighting = Dropped(p, per="sample", seed=1)
    samples = 20000
    weights = weighting(*situation(members=3, shape=(samples,)))
    counts = Counter(tuple(row) for row in (weights > 0).T.tolist())
    for kept, probability in reference_probabilities(3, p).items():
        deviation = math.sqrt(samples * probability * (1 - probability))
        assert counts[kept] == pytest.approx(samples * probability, abs=4 * deviation + 1e-6)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_those_who_are_kept_share_equally(situation: Callable[..., Any], per: Any) -> None:
    for step in range(50):
        weights = Dropped(0.5, per)(*situation(members=4, shape=(2, 3), step=step))
        kept = weights > 0
        torch.testing.assert_close(weights, kept.double() / kept.double().sum(0))


def test_a_batch_is_one_choice_and_samples_are_many(situation: Callable[..., Any]) -> None:
    batches = [Dropped(0.5)(*situation(shape=(50,), step=step)) for step in range(20)]
    assert all(torch.equal(weights, weights[:, :1].expand(3, 50)) for weights in batches)
    assert len({tuple(weights[:, 0].tolist()) for weights in batches}) > 3
    weights = Dropped(0.5, per="sample")(*situation(shape=(50,)))
    assert len({tuple(row) for row in weights.T.tolist()}) > 3


def test_a_seed_is_a_sequence(situation: Callable[..., Any]) -> None:
    first, again, other = (
        Dropped(0.5, per="sample", seed=seed)(*situation(shape=(50,))) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_p_must_be_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got"):
        Dropped(p)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="per must be one of batch, sample, got 'epoch'"):
        Dropped(per="epoch")  # type: ignore[arg-type]


def test_who_teaches_a_sample_does_not_depend_on_its_batch(situation: Callable[..., Any]) -> None:
    teachers, student, batch, progress = situation(shape=(50, 2))
    whole = Dropped(0.5, per="sample")(teachers, student, batch, progress)
    rows = torch.tensor([17, 3, 40])
    part = [each._replace(logits=each.logits[rows]) for each in (*teachers, student)]
    own = batch._replace(target=batch.target[rows], index=batch.index[rows])
    alone = Dropped(0.5, per="sample")(tuple(part[:-1]), part[-1], own, progress)
    assert torch.equal(alone, whole[:, rows])

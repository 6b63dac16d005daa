"""Places of samples in views, against a dictionary of all of them."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

from ensemble_kd.cache import Places

LEAST, MOST = -(2**63), 2**63 - 1
VIEWS = 3
INDICES = {
    "one": [0],
    "whole": list(range(40)),
    "gaps": [0, 1, 3, 4, 7, 8, 20, 21],
    "begins late": [5, 6, 9],
    "last in the table": [0, 1, 2, 8 * 4 + 1023],
    "first to be searched": [0, 1, 2, 8 * 4 + 1024],
    "far apart": [2, 10**12, 10**12 + 1, 2**62],
    "ends of the type": [LEAST, 0, MOST],
    "below zero": [-3, -1, 0, 2],
}


def reference(index: list[int], views: int, apart: int) -> dict[tuple[int, int], int]:
    return {
        (sample, view): place + view * apart
        for place, sample in enumerate(index)
        for view in range(views)
    }


def asked(index: list[int]) -> list[int]:
    """The numbers, their neighbours, and what is far out on either side."""
    near = {number + step for number in index for step in (-1, 0, 1)}
    far = {LEAST, LEAST + 1, -1, 10**6, MOST - 1, MOST}
    return sorted(number for number in near | far if LEAST <= number <= MOST)


@pytest.mark.parametrize("apart", [None, 64, 2**31, 2**40])
@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_every_sample_in_every_view(index: list[int], apart: int | None) -> None:
    known = reference(index, VIEWS, len(index) if apart is None else apart)
    made = Places(torch.tensor(index), VIEWS, apart)
    views = (LEAST, -1, *range(VIEWS + 1), MOST)
    pairs = list(itertools.product(asked(index), views))
    np.random.default_rng(0).shuffle(pairs)
    samples, chosen = torch.tensor(pairs).unbind(1)
    for places in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        found = places.of(samples, chosen)
        assert found.dtype == np.int64
        for pair, place in zip(pairs, found.tolist(), strict=True):
            assert place == known[pair] if pair in known else place < 0, pair


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_nothing_is_asked(index: list[int]) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert Places(torch.tensor(index), VIEWS).of(none, none).tolist() == []


def test_a_few_far_numbers_take_no_large_table() -> None:
    places = Places(torch.tensor([0, 10**9, 10**12]), 1)
    assert len(pickle.dumps(places)) < 2000

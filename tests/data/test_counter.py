from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ensemble_kd.data.counter import absorb, derive, integers, normal, words

WORD = (1 << 64) - 1


def reference_splitmix64(seed: int, count: int) -> list[int]:
    """The generator as its authors state it, on Python's integers."""
    words = []
    for number in range(1, count + 1):
        word = (seed + number * 0x9E3779B97F4A7C15) & WORD
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
        words.append(word ^ (word >> 31))
    return words


def test_published_outputs() -> None:
    assert absorb(words(1234567), words(torch.arange(5))).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.integers(-(2**70), 2**70))
def test_absorb_is_splitmix64(seed: int) -> None:
    drawn = absorb(words(seed), words(torch.arange(20)))
    assert drawn.tolist() == reference_splitmix64(seed & WORD, 20)


def test_absorb_broadcasts_and_leaves_its_arguments_alone() -> None:
    state, key = words(torch.arange(3)[:, None]), words(torch.arange(4))
    drawn = absorb(state, key)
    assert drawn.shape == (3, 4)
    assert drawn[2, 3] == absorb(words(2), words(3))[0]
    assert state.flatten().tolist() == [0, 1, 2]
    assert key.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("across", [False, True])
def test_words_are_uniform(across: bool) -> None:
    """Along one stream, and across the first numbers of streams with consecutive keys."""
    if across:
        outer = absorb(words(0), words(torch.arange(400)[:, None]))
        drawn = absorb(absorb(outer, words(torch.arange(500))), words(0))
    else:
        drawn = absorb(words(7), words(torch.arange(200_000)))
    flat = drawn.ravel() / 2.0**64
    assert stats.kstest(flat, "uniform").pvalue > 1e-3
    pairs = np.histogram2d(flat[:-1], flat[1:], bins=16, range=[[0, 1], [0, 1]])[0].ravel()
    assert stats.chisquare(pairs).pvalue > 1e-3
    bits = np.unpackbits(drawn.ravel().view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 0.006


@pytest.mark.parametrize("bound", [2, 3, 9, 2**31 - 1])
def test_integers_fill_their_range_evenly(bound: int) -> None:
    numbers = integers(absorb(words(3), words(torch.arange(2000))), 5, bound)
    assert numbers.shape == (2000, 5)
    assert 0 <= int(numbers.min()) <= int(numbers.max()) < bound
    places = (numbers.double() * min(bound, 9) / bound).long().flatten()
    counts = torch.bincount(places, minlength=min(bound, 9))
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_normal_is_normal() -> None:
    numbers = normal(absorb(words(5), words(torch.arange(501))), 401).double().numpy()
    assert numbers.shape == (501, 401)
    assert np.isfinite(numbers).all()
    assert stats.kstest(numbers.ravel(), "norm").pvalue > 1e-3
    # Both numbers of a pair come from one word: they must not know of each other.
    first, second = numbers[:, :200].ravel(), numbers[:, 201:401].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 0.015


def reference_normal(drawn: list[int]) -> list[float]:
    """Box and Muller, with the radius from the upper 24 bits and the angle from the lower 32."""
    radii = [np.sqrt(-2 * np.log(((word >> 40) + 0.5) / 2**24)) for word in drawn]
    angles = [2 * np.pi * (word & 0xFFFFFFFF) / 2**32 for word in drawn]
    both = list(zip(radii, angles, strict=True))
    return [r * np.cos(a) for r, a in both] + [r * np.sin(a) for r, a in both]


def test_normal_is_box_and_muller() -> None:
    (numbers,) = normal(words(99), 12)
    expected = reference_normal(reference_splitmix64(99, 6))
    torch.testing.assert_close(
        numbers.double(), torch.tensor(expected, dtype=torch.float64), atol=2e-6, rtol=1e-5
    )
    (odd,) = normal(words(99), 11)
    assert torch.equal(odd, numbers[:11])


def test_derived_seeds_differ_by_seed_and_purpose() -> None:
    seeds = {derive(seed, purpose) for seed in range(50) for purpose in ("order", "val", "test")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert derive(0, "order") == derive(0, "order")

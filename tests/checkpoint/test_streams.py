"""Generators go on from where they stood, through a file that holds no code."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from ensemble_kd.streams import streams, take_up


def drawn() -> list[float]:
    # Normal numbers come in pairs, of which the second is kept.
    own = [random.gauss(0, 1), random.random(), float(torch.randn(()))]
    return [*own, float(np.random.normal()), float(np.random.random())]  # noqa: NPY002


def test_they_go_on_in_the_middle_of_a_pair() -> None:
    drawn()
    file = io.BytesIO()
    torch.save(streams(), file)
    expected = [drawn() for _ in range(3)]
    assert drawn() not in expected
    file.seek(0)
    take_up(torch.load(file, weights_only=True))
    assert [drawn() for _ in range(3)] == expected

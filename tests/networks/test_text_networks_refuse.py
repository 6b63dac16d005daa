"""Arguments that networks for texts refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from ensemble_kd.networks import Bert, BiLstm, MobileBert


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bert(10, [3, 4], 2), r"inputs must be \(length,\) of a text .* got \[3, 4\]"),
        (lambda: Bert(10, [0], 2), r"inputs must be \(length,\) of a text in tokens, got \[0\]"),
        (lambda: Bert(0, [4], 2), "vocabulary must be >= 1, got 0"),
        (lambda: Bert(10, [4], 1), "classes must be >= 2, got 1"),
        (lambda: Bert(10, [4], 2, width=10, heads=4), "width must be a multiple of heads = 4"),
        (lambda: Bert(10, [4], 2, dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: MobileBert(10, [4], 2, inside=6), "inside must be a multiple of heads = 4, got 6"),
        (
            lambda: MobileBert(10, [4], 2, normalisation="batch"),  # type: ignore[arg-type]
            "normalisation must be one of no_norm, layer_norm, got 'batch'",
        ),
        (
            lambda: MobileBert(10, [4], 2, activation="tanh"),  # type: ignore[arg-type]
            "activation must be one of relu, gelu, got 'tanh'",
        ),
        (lambda: BiLstm(10, [4], 2, width=0), "width must be >= 1, got 0"),
        (lambda: BiLstm(10, [], 2), r"inputs must be \(length,\) of a text in tokens, got \[\]"),
    ],
)
def test_bad_arguments(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

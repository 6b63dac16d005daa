from __future__ import annotations

import numpy as np
import pytest

from ensemble_kd.data import Digits
from ensemble_kd.errors import UserError


def test_the_images_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    train, test, classes, *_ = Digits().load()
    assert test is None
    assert classes == 10
    assert train.inputs.shape == (1797, 1, 8, 8)
    assert train.inputs.dtype == np.float32
    assert float(train.inputs.min()) == 0
    assert float(train.inputs.max()) == 1
    bunch = load_digits()
    assert np.array_equal(train.inputs.reshape(1797, 64) * 16, bunch.data)
    assert np.array_equal(train.labels, bunch.target)


def test_default_standardisation() -> None:
    source = Digits()
    inputs = source.load().train.inputs.astype(np.float64)
    assert source.mean == pytest.approx((inputs.mean(),), abs=1e-4)
    assert source.std == pytest.approx((inputs.std(),), abs=1e-4)


def test_limit() -> None:
    whole, part = Digits().load().train, Digits(limit=200).load().train
    counts = np.bincount(part.labels)
    assert counts.sum() == 200
    assert counts.min() >= 19
    assert np.array_equal(Digits(limit=50, stratified=False).load().train.labels, whole.labels[:50])
    with pytest.raises(UserError, match="digits: limit must be between 1 and 1797, got 2000"):
        Digits(limit=2000).load()

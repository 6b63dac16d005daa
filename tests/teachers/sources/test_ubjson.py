"""Whether bytes are whole UBJSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kd.teachers.sources.ubjson import check_ubjson

SAMPLES = [
    b"Z",
    b"T",
    b"i\xff",
    b"U\xff",
    b"I\x01\x00",
    b"l\0\0\0\1",
    b"L\0\0\0\0\0\0\0\1",
    b"d\0\0\0\0",
    b"D\0\0\0\0\0\0\0\0",
    b"Ca",
    b"Si\x03abc",
    b"[]",
    b"[i\1Ti\2]",
    b"[#i\2i\1Z",
    b"[$i#i\3\1\2\3",
    b"[$d#L\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0",
    b"[$S#i\2i\1ai\1b",
    b"{}",
    b"{i\1a[]i\2bcZ}",
    b"{#i\1i\1ai\5",
    b"{$i#i\1i\1a\5",
]


@pytest.mark.parametrize("data", SAMPLES)
def test_whole_values(data: bytes) -> None:
    check_ubjson(data)
    for cut in range(len(data)):
        with pytest.raises(ValueError, match=r"middle|marker|type"):
            check_ubjson(data[:cut])
    with pytest.raises(ValueError, match="behind"):
        check_ubjson(data + b"Z")


@pytest.mark.parametrize("data", [b"X", b"Sd\0\0\0\0", b"[$i\1]", b"Si\xff", b"]"])
def test_what_is_no_value(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"marker|count"):
        check_ubjson(data)


def test_what_xgboost_writes(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    rng = np.random.default_rng(0)
    rows: Any = rng.normal(size=(40, 5))
    model = XGBClassifier(n_estimators=3, n_jobs=1).fit(rows, np.arange(40) % 3)
    model.save_model(tmp_path / "m.ubj")
    data = (tmp_path / "m.ubj").read_bytes()
    check_ubjson(data)
    for cut in rng.integers(0, len(data), 200):
        with pytest.raises(ValueError, match=r"middle|marker|type"):
            check_ubjson(data[:cut])
    model.save_model(tmp_path / "m.json")
    json.loads((tmp_path / "m.json").read_bytes())

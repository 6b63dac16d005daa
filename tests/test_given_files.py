"""Files that the user brings."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ensemble_kd.given_files import digest_of, is_pickle, one_line, shortened


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_known_by_how_it_begins(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(pickle.dumps([1], protocol))
    assert is_pickle(tmp_path / "file.bin")


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x99", b"PK\x03\x04", b"tree\n"])
def test_other_files_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(content)
    assert not is_pickle(tmp_path / "file.bin")
    (tmp_path / "file.bin").rename(tmp_path / "file.PKL")
    assert is_pickle(tmp_path / "file.PKL")


def test_a_digest_is_that_of_what_is_in_the_files(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for file, content in ((one, b"same"), (two, b"same"), (other, b"another")):
        file.write_bytes(content)
    first = digest_of("kind", [one], {"a": 1, "b": None})
    assert digest_of("kind", [two], {"b": None, "a": 1}) == first
    assert digest_of("kind", [other], {"a": 1, "b": None}) != first
    assert digest_of("sort", [one], {"a": 1, "b": None}) != first
    assert digest_of("kind", [one], {"a": 2, "b": None}) != first
    # Of several files it matters which is which.
    assert digest_of("kind", [one, other], {}) == digest_of("kind", [other, one], {})
    (tmp_path / "swapped").mkdir()
    (tmp_path / "swapped" / "one").write_bytes(b"another")
    (tmp_path / "swapped" / "other").write_bytes(b"same")
    swapped = [tmp_path / "swapped" / "one", tmp_path / "swapped" / "other"]
    assert digest_of("kind", swapped, {}) != digest_of("kind", [one, other], {})


def test_words_of_others_become_one_line() -> None:
    assert one_line(ValueError("first\n  second\tthird")) == "first second third"
    assert one_line(ValueError("a" * 300)) == "a" * 200 + " ..."
    assert one_line(KeyError()) == "KeyError"


def test_lists_are_shortened() -> None:
    assert shortened(["b", "a"]) == "a, b"
    assert shortened(range(7), 3) == "0, 1, 2 and 4 more"

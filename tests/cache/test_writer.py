from __future__ import annotations

import errno
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ensemble_kd.cache import Float32, Sampled, Shelf, Writer
from ensemble_kd.errors import UserError

Fill = Callable[..., Path]
Usage = namedtuple("Usage", "total used free")
SHARD_BYTES = 60  # three rows of five classes


def begin(root: Path, key: str, index: Tensor, **other: Any) -> Writer:
    """A writer whose lock is given back, as after the death of its process."""
    shelf = Shelf(root, other.pop("shard_bytes", SHARD_BYTES))
    arguments = {"described": {"teacher": "t"}, "views": 3, "shape": (5,), "format": Float32()}
    with shelf.locked(key):
        return shelf.writing(key, index=index, **{**arguments, **other})


def write(writer: Writer, said: Tensor, piece: tuple[int, int, int]) -> None:
    view, start, stop = piece
    logits = said[view, start:stop]
    writer.write(view, start, Float32().encode(logits, logits, logits))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def journal(root: Path, key: str) -> Path:
    """The file of the one process that has written something."""
    folder = root / ".unfinished" / key[:32] / "journals"
    (found,) = [path for path in folder.iterdir() if not path.suffix]
    return found


@pytest.fixture
def undisturbed(tmp_path: Path, fill: Fill) -> dict[str, bytes]:
    return content(fill(tmp_path / "undisturbed", shard_bytes=SHARD_BYTES))


def test_what_is_missing_starts_at_multiples_of_the_chunk(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    writer = begin(tmp_path, key, index)
    pieces = [(view, start, min(start + 4, 11)) for view in range(3) for start in (0, 4, 8)]
    assert writer.missing(4) == pieces
    assert writer.missing(100) == [(0, 0, 11), (1, 0, 11), (2, 0, 11)]
    write(writer, said, (1, 4, 8))
    assert writer.missing(4) == pieces[:4] + pieces[5:]
    # Other pieces than were written, half of one is there: all of it is to be written again.
    assert writer.missing(6) == [(v, s, min(s + 6, 11)) for v in range(3) for s in (0, 6)]
    assert (1, 4, 6) not in writer.missing(2)
    assert (1, 2, 4) in writer.missing(2)
    with pytest.raises(ValueError, match="chunk must be"):
        writer.missing(0)


def test_any_order_and_size_of_pieces_makes_the_same_files(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, undisturbed: dict[str, bytes]
) -> None:
    writer = begin(tmp_path, key, index)
    pieces = writer.missing(7)
    random.Random(0).shuffle(pieces)
    for piece in pieces:
        write(writer, said, piece)
    writer.finish()
    assert content(tmp_path / key[:32]) == undisturbed
    assert not (tmp_path / ".unfinished" / key[:32]).exists()


def test_nothing_is_found_before_it_is_finished(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    writer = begin(tmp_path, key, index)
    for piece in writer.missing(4)[:-1]:
        write(writer, said, piece)
    with pytest.raises(ValueError, match="3 are missing"):
        writer.finish()
    assert Shelf(tmp_path).find(key) is None
    write(writer, said, writer.missing(4)[0])
    writer.finish()
    assert Shelf(tmp_path).find(key) is not None
    with (
        Shelf(tmp_path).locked(key),
        pytest.raises(ValueError, match="got no lock"),
    ):
        Shelf(tmp_path).writing(key, {}, index, 1, (1,), Float32())
    with pytest.raises(ValueError, match="a record that is not there"):
        begin(tmp_path, key, index)


def test_goes_on_where_it_stopped(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, undisturbed: dict[str, bytes]
) -> None:
    first = begin(tmp_path, key, index)
    pieces = first.missing(4)
    for piece in pieces[:5]:
        write(first, said, piece)
    second = begin(tmp_path, key, index)
    assert second.missing(4) == pieces[5:]
    for piece in second.missing(4):
        write(second, said, piece)
    second.finish()
    assert content(tmp_path / key[:32]) == undisturbed


@pytest.mark.parametrize(
    "other",
    [
        {"described": {"teacher": "u"}},
        {"views": 2},
        {"shape": (6,)},
        {"format": Sampled(10, 0)},
        {"shard_bytes": 2**20},
        {"index": torch.arange(11)},
    ],
)
def test_what_was_to_hold_something_else_is_not_continued(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, other: dict[str, Any]
) -> None:
    write(begin(tmp_path, key, index), said, (0, 0, 4))
    assert not begin(tmp_path, key, **{"index": index, **other}).written.any()
    assert not begin(tmp_path, key, index).written.any()


def test_descriptions_are_compared_as_json(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    described = {"shape": (1, 2), "a": 1}
    write(begin(tmp_path, key, index, described=described), said, (0, 0, 4))
    same = begin(tmp_path, key, index, described={"a": 1, "shape": [1, 2]})
    assert same.written.sum() == 4


@pytest.mark.parametrize("damage", ["half a line", "a bit", "cut off", "gone", "out of range"])
def test_pieces_that_are_not_what_the_journal_says_are_written_again(
    tmp_path: Path,
    key: str,
    index: Tensor,
    said: Tensor,
    undisturbed: dict[str, bytes],
    damage: str,
) -> None:
    writer = begin(tmp_path, key, index)
    pieces = writer.missing(4)
    for piece in pieces:
        write(writer, said, piece)
    path = journal(tmp_path, key)
    shard = path.parent.parent / "record" / "view-0001-00001.bin"  # samples 3 to 5: of two pieces
    expected = [(1, 0, 4), (1, 4, 8)]
    if damage == "half a line":
        path.write_bytes(path.read_bytes()[:-1])
        expected = [(2, 8, 11)]
    elif damage == "a bit":
        data = bytearray(shard.read_bytes())
        data[-1] ^= 128
        shard.write_bytes(data)
        expected = [(1, 4, 8)]
    elif damage == "cut off":
        os.truncate(shard, 30)
        expected = [(1, 4, 8)]
    elif damage == "gone":
        shard.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"9 0 4 00\n0 9 12 00\n0 3 3 00\n0 x\n\xff\n\n")
        expected = []
    again = begin(tmp_path, key, index)
    assert again.missing(4) == expected
    for piece in expected:
        write(again, said, piece)
    assert begin(tmp_path, key, index).written.all()
    again.finish()
    assert content(tmp_path / key[:32]) == undisturbed


def test_a_line_after_half_a_line_counts(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    writer = begin(tmp_path, key, index)
    write(writer, said, (0, 0, 4))
    with journal(tmp_path, key).open("ab") as file:
        file.write(b"0 4 8 0123")
    write(begin(tmp_path, key, index), said, (0, 8, 11))
    assert begin(tmp_path, key, index).missing(4)[0] == (0, 4, 8)
    assert begin(tmp_path, key, index).written.sum() == 7


@pytest.mark.parametrize("stop_at", range(12))
def test_killed_at_any_system_call_it_never_believes_a_wrong_row(
    tmp_path: Path,
    key: str,
    index: Tensor,
    said: Tensor,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
) -> None:
    """Seven bytes are written at a time, and only so many times."""
    real, calls = os.pwrite, 0

    class DeadError(BaseException):
        pass

    def short(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls > stop_at * 8:
            raise DeadError
        return real(descriptor, data[:7], offset)

    writer = begin(tmp_path, key, index)
    monkeypatch.setattr(os, "pwrite", short)
    done = []
    with pytest.raises(DeadError):  # noqa: PT012  # what was done before counts
        for piece in writer.missing(4):
            write(writer, said, piece)
            done.append(piece)
    monkeypatch.setattr(os, "pwrite", real)
    again = begin(tmp_path, key, index)
    assert again.missing(4) == [piece for piece in writer.missing(4) if piece not in done]
    for piece in again.missing(4):
        write(again, said, piece)
    again.finish()
    assert content(tmp_path / key[:32]) == undisturbed


def test_a_shard_that_changes_before_the_end_is_refused(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    writer = begin(tmp_path, key, index)
    for piece in writer.missing(4):
        write(writer, said, piece)
    folder = journal(tmp_path, key).parent.parent
    os.truncate(folder / "record" / "view-0001-00001.bin", 3)
    with pytest.raises(UserError, match="changed while it was written"):
        writer.finish()
    assert Shelf(tmp_path).find(key) is None


def test_a_full_disk_is_refused_before_the_first_byte(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 11 * 3 * 20 + 8 * 11
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, needed - 1))
    with pytest.raises(UserError, match=f"take {needed} bytes, .* has {needed - 1} bytes") as full:
        begin(tmp_path, key, index)
    assert "\n" not in str(full.value)
    assert str(tmp_path) in str(full.value)
    assert not (tmp_path / ".unfinished").exists()
    with pytest.raises(UserError, match=r"take 1,200\.0 MB, .* has 747 bytes"):
        begin(tmp_path, key, index, shape=(9_091_000,))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, needed))
    write(begin(tmp_path, key, index), said, (0, 0, 11))
    # A third of it is there.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, needed - 220))
    assert begin(tmp_path, key, index).written.sum() == 11


def test_a_disk_that_fills_up_on_the_way_is_one_clear_line(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begin(tmp_path, key, index)
    write(writer, said, (0, 0, 4))

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(UserError, match="No space left on device") as refusal:
            write(writer, said, (0, 4, 8))
    assert "\n" not in str(refusal.value)
    assert begin(tmp_path, key, index).written.sum() == 4


def test_pieces_must_fit(tmp_path: Path, key: str, index: Tensor) -> None:
    writer = begin(tmp_path, key, index)
    rows = np.zeros((4, 20), np.uint8)
    for view, start, size in [(-1, 0, 4), (3, 0, 4), (0, -1, 4), (0, 8, 4), (0, 0, 0)]:
        with pytest.raises(ValueError, match="a piece must lie within 3 views of 11 samples"):
            writer.write(view, start, rows[:size])
    for wrong in (rows[:, 1:], rows.astype(np.int16), rows[0]):
        with pytest.raises(ValueError, match=r"encoded must be \(n, 20\) uint8"):
            writer.write(0, 0, wrong)  # type: ignore[arg-type]

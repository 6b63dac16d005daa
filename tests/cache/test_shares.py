"""Several workers fill the same records: whoever dies, the bytes are the same."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from ensemble_kd.cache import Float32, Shares, Shelf, Writer
from ensemble_kd.errors import UserError

Fill = Callable[..., Path]
CHUNK = 4
OTHER = "ab" * 32
SHARD_BYTES = 60  # three rows of five classes


def join(root: Path, key: str, index: Tensor) -> Writer:
    shelf = Shelf(root, SHARD_BYTES)
    with shelf.locked(key):
        return shelf.writing(key, {"teacher": "t"}, index, 3, (5,), Float32())


def write(writer: Writer, said: Tensor, piece: tuple[int, int, int]) -> None:
    view, start, stop = piece
    logits = said[view, start:stop]
    writer.write(view, start, Float32().encode(logits, logits, logits))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def finish(root: Path, key: str, writer: Writer) -> None:
    with Shelf(root).locked(key):
        writer.finish()


@pytest.fixture
def undisturbed(tmp_path: Path, fill: Fill) -> dict[str, bytes]:
    return content(fill(tmp_path / "undisturbed", shard_bytes=SHARD_BYTES))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_take_each_piece_once_and_make_the_same_files(
    tmp_path: Path,
    key: str,
    index: Tensor,
    said: Tensor,
    undisturbed: dict[str, bytes],
    workers: int,
) -> None:
    shares = [Shares([join(tmp_path, key, index)], CHUNK) for _ in range(workers)]
    claims = {number: each.claimed() for number, each in enumerate(shares)}
    taken = []
    turn = random.Random(workers)
    while claims:
        number = turn.choice(list(claims))
        piece = next(claims[number], None)
        if piece is None:
            del claims[number]
            continue
        taken.append(piece)
        write(shares[number].writers[0], said, piece)
        shares[number].done(piece)
    assert sorted(taken) == [(v, s, min(s + 4, 11)) for v in range(3) for s in (0, 4, 8)]
    shares[0].refresh()
    assert shares[0].whole
    assert shares[0].written == 1
    finish(tmp_path, key, shares[0].writers[0])
    assert content(tmp_path / key[:32]) == undisturbed
    assert not (tmp_path / ".unfinished" / key[:32]).exists()


def test_what_somebody_works_on_is_left_to_him_until_he_dies(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    one, other = (Shares([join(tmp_path, key, index)], CHUNK) for _ in range(2))
    mine = next(one.claimed())
    assert mine == (0, 0, 4)
    theirs = list(other.claimed())
    assert len(theirs) == 8
    assert mine not in theirs
    assert list(one.claimed()) == []  # neither its own again, nor those of the other
    other.close()  # as the system does after a death
    assert list(one.claimed()) == theirs


def test_a_block_comes_back_when_its_last_piece_is_done(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble_kd.cache.shares.BLOCKS", 3)  # three pieces each
    one, other = (Shares([join(tmp_path, key, index)], CHUNK) for _ in range(2))
    claim = one.claimed()
    pieces = [next(claim) for _ in range(3)]
    assert pieces == [(0, 0, 4), (0, 4, 8), (0, 8, 11)]
    for piece in pieces[:2]:
        write(one.writers[0], said, piece)
        one.done(piece)
    assert next(other.claimed())[0] == 1
    one.done(pieces[2])  # given back, though it was not written
    other.refresh()
    assert list(other.claimed())[:1] == [pieces[2]]


def test_records_that_some_miss_are_shared_as_far_as_they_are(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    both = Shares([join(tmp_path, key, index), join(tmp_path, OTHER, index)], CHUNK)
    one = Shares([join(tmp_path, key, index)], CHUNK)
    first = next(one.claimed())
    rest = list(both.claimed())
    assert first not in rest  # one of its two records is being written there
    write(one.writers[0], said, first)
    one.done(first)
    both.refresh()
    assert list(both.claimed()) == [first]
    assert not both.writers[0].lacks(*first)
    assert both.writers[1].lacks(*first)


def test_what_others_say_they_wrote_is_verified_before_the_record_appears(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, undisturbed: dict[str, bytes]
) -> None:
    one, other = join(tmp_path, key, index), join(tmp_path, key, index)
    pieces = one.missing(CHUNK)
    for piece in pieces[:4]:
        write(one, said, piece)
    for piece in pieces[4:]:
        write(other, said, piece)
    shard = other.folder / "record" / "view-0002-00000.bin"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    one.refresh()
    assert one.whole
    with pytest.raises(ValueError, match="4 are missing"):
        finish(tmp_path, key, one)
    assert one.missing(CHUNK) == [(2, 0, 4)]
    write(one, said, (2, 0, 4))
    finish(tmp_path, key, one)
    assert content(tmp_path / key[:32]) == undisturbed


def test_who_comes_too_late_finds_it_finished(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    one, late = join(tmp_path, key, index), join(tmp_path, key, index)
    for piece in one.missing(CHUNK):
        write(one, said, piece)
    finish(tmp_path, key, one)
    write(late, said, (0, 0, 4))  # the same bytes are there
    assert list(Shares([late], CHUNK).claimed()) == []
    late.refresh()
    late.close()
    assert Shelf(tmp_path).find(key) is not None


def test_rows_are_written_and_read_wherever_they_lie(
    tmp_path: Path, key: str, index: Tensor, said: Tensor, undisturbed: dict[str, bytes]
) -> None:
    one, other = join(tmp_path, key, index), join(tmp_path, key, index)
    places = np.random.default_rng(0).permutation(33)
    rows = Float32().encode(said.reshape(33, 5), index, index)
    for part in np.array_split(places, 5):
        one.write_rows(part, rows[part])
    other.refresh()
    assert (other.read_rows(places) == rows[places]).all()
    again = join(tmp_path, key, index)  # each row's line is held against its bytes
    assert again.whole
    finish(tmp_path, key, again)
    assert content(tmp_path / key[:32]) == undisturbed
    with pytest.raises(FileNotFoundError):
        other.read_rows(places)


def test_nothing_is_removed_that_somebody_works_on(tmp_path: Path, key: str, index: Tensor) -> None:
    writer = join(tmp_path, key, index)
    shelf = Shelf(tmp_path)
    with pytest.raises(UserError, match="another process is at work on it"):
        shelf.keyed.discard(shelf.keyed.entries()[0])
    assert writer.folder.is_dir()
    writer.close()
    shelf.keyed.discard(shelf.keyed.entries()[0])
    assert not writer.folder.exists()


def test_a_folder_that_goes_away_is_one_clear_line(
    tmp_path: Path, key: str, index: Tensor, said: Tensor
) -> None:
    writer = join(tmp_path, key, index)
    writer.folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="outputs could not be kept: No such file") as refusal:
        write(writer, said, (0, 0, 4))
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="outputs could not be kept"):
        writer.write_rows(np.array([3]), np.zeros((1, 20), np.uint8))


WORKER = """
    import sys, time
    from pathlib import Path
    import torch
    from ensemble_kd.cache import Float32, Shares, Shelf

    root, key, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    shelf, form, index = Shelf(root, 50_000), Float32(), torch.arange(3000)
    with shelf.locked(key):
        if shelf.find(key) is not None:
            sys.exit()
        writer = shelf.writing(key, {}, index, 2, (300,), form)
    shares = Shares([writer], 64)
    while shelf.find(key) is None:
        for piece in shares.claimed():
            view, start, stop = piece
            rows = index[start:stop]
            said = torch.sin(rows[:, None] * 0.7 + torch.arange(300) + view)
            time.sleep(pause)
            writer.write(view, start, form.encode(said, rows, rows))
            shares.done(piece)
            print(*piece, flush=True)
        shares.refresh()
        if shares.whole:
            with shelf.locked(key):
                if shelf.find(key) is None:
                    writer.finish()
        time.sleep(0.01)
"""


def start(root: Path, key: str, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(root), key, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def pieces_of(worker: subprocess.Popen[str]) -> list[str]:
    """What a process wrote, until it ended, and nobody has read of yet."""
    return worker.communicate()[0].splitlines()


def test_processes_that_are_killed_at_any_moment_leave_the_same_bytes(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    turn = random.Random(0)
    workers = [start(together, key, 0.02) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdout is not None
        for _ in range(turn.randrange(1, 6)):
            worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
    counts = [len(pieces_of(worker)) for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL] * 2
    assert sum(counts) < 94
    assert Shelf(together).find(key) is None
    workers = [start(together, key, 0.0) for _ in range(2)]
    done = [pieces_of(worker) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    monkeypatch.setattr(sys, "argv", ["", str(alone), key, "0"])
    exec(compile(textwrap.dedent(WORKER), "worker", "exec"), {})
    # Nothing was written twice, and what the killed ones had written was not written again.
    assert len({*done[0], *done[1]}) == len(done[0]) + len(done[1]) < 94 - 2
    assert content(together / key[:32]) == content(alone / key[:32])
    assert not (together / ".unfinished" / key[:32]).exists()

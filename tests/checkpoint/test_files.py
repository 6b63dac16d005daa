"""Checkpoints as files: whole or not there, the one before kept, damage seen."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from ensemble_kd.checkpoint import Checkpoints, finished, taken_up
from ensemble_kd.errors import UserError


def held(path: Path | None) -> int:
    assert path is not None
    return int(torch.load(path, weights_only=True)["batches"])


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "unfinished" / "checkpoint", "student")


def test_the_newest_and_the_one_before_it_stay(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None
    for batches in (1, 2, 10, 300):
        checkpoints.write({"batches": batches}, batches)
        assert held(checkpoints.newest()) == batches
    kept = sorted(checkpoints.folder.iterdir())
    assert [held(path) for path in kept] == [10, 300]


@pytest.mark.parametrize("size", [0, 100, None])
def test_a_damaged_one_is_set_aside_and_the_one_before_it_used(
    size: int | None, checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    for batches in (1, 2):
        checkpoints.write({"batches": batches}, batches)
    newest = checkpoints.newest()
    assert newest is not None
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    newest.write_bytes(content if size is None else content[:size])
    assert held(checkpoints.newest()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"damaged checkpoint of stage student set aside as {newest}.damaged: ")
    assert Path(f"{newest}.damaged").exists()
    # It may come again, whole, and then it counts.
    checkpoints.write({"batches": 2}, 2)
    assert held(checkpoints.newest()) == 2
    assert capsys.readouterr().err == ""


def test_a_full_disk_leaves_what_was_whole(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.write({"batches": 1}, 1)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, bytes(content)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError) as refusal:
            checkpoints.write({"batches": 2}, 2)
    assert str(refusal.value) == (
        f"stage student: no checkpoint could be written into {checkpoints.folder}: No space left "
        "on device; what was whole still is, and the same command goes on from there"
    )
    assert held(checkpoints.newest()) == 1
    assert len(list(checkpoints.folder.iterdir())) == 1


def test_what_was_being_written_is_removed(checkpoints: Checkpoints) -> None:
    checkpoints.write({"batches": 1}, 1)
    (checkpoints.folder / "unfinished").write_bytes(b"half of")
    assert held(checkpoints.newest()) == 1
    assert len(list(checkpoints.folder.iterdir())) == 1


def test_only_what_a_checkpoint_counts_on_stays(checkpoints: Checkpoints) -> None:
    unfinished = checkpoints.folder.parent
    unfinished.mkdir()
    names = ("curves.csv", "epoch-0000.safetensors", "weights.safetensors", "provenance.json")

    def left() -> set[str]:
        for name in names:
            (unfinished / name).write_text("half of")
        taken_up(unfinished, checkpoints)
        return {path.name for path in unfinished.iterdir()}

    assert left() == set()
    checkpoints.write({"batches": 1}, 1)
    assert left() == {"checkpoint", "epoch-0000.safetensors"}
    assert finished(unfinished, "0" * 64) is None

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ensemble_kd.cache import DamagedError, Float32, Record, Shelf
from ensemble_kd.errors import UserError
from ensemble_kd.files import file_digest

Fill = Callable[..., Path]
OTHER = "ab" * 32
SHARD = "view-0001-00001.bin"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_written_is_found(tmp_path: Path, fill: Fill, index: Tensor, key: str) -> None:
    folder = fill(tmp_path)
    record = Shelf(tmp_path).find(key)
    assert isinstance(record, Record)
    assert record.folder == folder
    in_memory = Shelf(tmp_path).find(key, into_memory=True)
    assert in_memory is not None
    views = torch.ones_like(index)
    assert torch.equal(in_memory.read(index, views), record.read(index, views))


def test_an_unknown_key_is_not_found(tmp_path: Path, fill: Fill) -> None:
    assert Shelf(tmp_path / "nowhere").find(OTHER) is None
    assert not (tmp_path / "nowhere").exists()
    fill(tmp_path)
    assert Shelf(tmp_path).find(OTHER) is None


@pytest.mark.parametrize("key", ["", "ab", "../" * 16, "AB" * 32, "a" * 31])
def test_keys_are_digests(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="expected a hex digest"):
        Shelf(tmp_path).find(key)


@pytest.mark.parametrize("name", ["index.npy", "manifest.json", SHARD])
def test_a_damaged_record_is_set_aside_and_written_again(
    tmp_path: Path, fill: Fill, key: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path, shard_bytes=80)
    for number in (1, 2):
        flip(folder / name)
        assert Shelf(tmp_path).find(key) is None
        said = capsys.readouterr().err
        assert name in said
        assert said.count("\n") == 1
        aside = folder.with_name(f"{folder.name}.damaged-{number}")
        assert (aside / name).exists()
        assert not folder.exists()
        fill(tmp_path, shard_bytes=80)
        assert Shelf(tmp_path).find(key) is not None


def test_a_truncated_shard_is_set_aside(
    tmp_path: Path, fill: Fill, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path, shard_bytes=80)
    os.truncate(folder / SHARD, 79)
    assert Shelf(tmp_path).find(key) is None
    assert "expected 80 bytes, found 79" in capsys.readouterr().err


def test_a_record_under_another_key_is_not_used(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path).rename(tmp_path / OTHER[:32])
    assert Shelf(tmp_path).find(OTHER) is None
    assert (tmp_path / f"{OTHER[:32]}.damaged-1").is_dir()


def test_digests_are_held_once_per_state_of_a_file(
    tmp_path: Path, fill: Fill, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def counted(path: Path) -> str:
        seen.append(path.name)
        return file_digest(path)

    monkeypatch.setattr("ensemble_kd.cache.shelf.file_digest", counted)
    folder = fill(tmp_path, shard_bytes=80)
    assert Shelf(tmp_path).find(key) is not None
    assert len(seen) == 10
    assert Shelf(tmp_path).find(key) is not None
    assert len(seen) == 10
    os.utime(folder / SHARD, ns=(1, 1))
    assert Shelf(tmp_path).find(key) is not None
    assert seen[10:] == [SHARD]


def test_finding_a_record_notes_when(tmp_path: Path, fill: Fill, key: str) -> None:
    folder = fill(tmp_path)
    os.utime(folder / "manifest.json", (5, 5))
    assert Shelf(tmp_path).find(key) is not None
    assert (folder / "manifest.json").stat().st_mtime > 1e9


def test_nobody_sets_aside_what_another_process_wrote_meanwhile(
    tmp_path: Path, fill: Fill, key: str
) -> None:
    folder = fill(tmp_path)
    seen = folder.stat().st_ino
    folder.rename(tmp_path / "elsewhere")
    fill(tmp_path)
    shelf = Shelf(tmp_path)
    shelf._set_aside(folder, seen, DamagedError("old"))
    assert shelf.find(key) is not None
    assert not list(tmp_path.glob("*.damaged-*"))


def test_a_root_that_cannot_be_written_to_is_one_clear_line(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="expected a folder that can be written") as refusal,
        Shelf(tmp_path / "file" / "deep").locked(key),
    ):
        pass
    assert "\n" not in str(refusal.value)


def test_writing_needs_the_lock_of_its_key(tmp_path: Path, index: Tensor, key: str) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(ValueError, match="inside of locked"):
        shelf.writing(key, {}, index, 1, (5,), Float32())
    with shelf.locked(OTHER), pytest.raises(ValueError, match="inside of locked"):
        shelf.writing(key, {}, index, 1, (5,), Float32())
    with shelf.locked(key):
        shelf.writing(key, {}, index, 1, (5,), Float32())
    with pytest.raises(ValueError, match="inside of locked"):
        shelf.writing(key, {}, index, 1, (5,), Float32())


def test_arguments_are_checked(tmp_path: Path, index: Tensor, key: str) -> None:
    shelf, form = Shelf(tmp_path), Float32()
    with shelf.locked(key):
        for wrong in (index.flip(0), index - 1, torch.tensor([1, 1])):
            with pytest.raises(ValueError, match="index must be ascending"):
                shelf.writing(key, {}, wrong, 3, (5,), form)
        for shape in (index.float(), index[None], index[:0]):
            with pytest.raises(ValueError, match="index must be"):
                shelf.writing(key, {}, shape, 3, (5,), form)
        with pytest.raises(ValueError, match="views and sizes must be > 0"):
            shelf.writing(key, {}, index, 0, (5,), form)
        for described in ({"a": float("nan")}, {"a": Path()}):
            with pytest.raises(ValueError, match="described must be JSON"):
                shelf.writing(key, described, index, 3, (5,), form)


def test_a_lock_is_waited_for_or_not(tmp_path: Path, key: str) -> None:
    with Shelf(tmp_path).locked(key):
        with (
            pytest.raises(UserError, match="another process is at work"),
            Shelf(tmp_path).locked(key, wait=False),
        ):
            pass
        with Shelf(tmp_path).locked(OTHER, wait=False):
            pass
    with Shelf(tmp_path).locked(key, wait=False):
        pass


PRODUCER = """
    import sys, time
    from pathlib import Path
    import torch
    from ensemble_kd.cache import Float32, Shelf

    root, key = Path(sys.argv[1]), sys.argv[2]
    shelf = Shelf(root)
    with shelf.locked(key):
        if shelf.find(key) is None:
            with open(root / "log", "a") as log:
                log.write("wrote\\n")
            writer = shelf.writing(key, {}, torch.arange(9), 2, (3,), Float32())
            for view, start, stop in writer.missing(2):
                time.sleep(0.01)
                said = torch.full((stop - start, 3), float(view))
                writer.write(view, start, Float32().encode(said, said, said))
            writer.finish()
        print(float(shelf.find(key).read(torch.tensor([8]), torch.tensor([1])).sum()))
"""


def test_of_two_processes_one_writes_and_both_read(tmp_path: Path, key: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PRODUCER), str(tmp_path), key]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["3.0", "3.0"]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "wrote\n"

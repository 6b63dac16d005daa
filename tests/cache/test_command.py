from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ensemble_kd.cache import Float16, Float32, Shelf, TopK
from ensemble_kd.cache.__main__ import main

Fill = Callable[..., Path]
OTHER = "ab" * 32
THIRD = "cd" * 32


def unfinished(root: Path, key: str, index: Tensor) -> Path:
    shelf = Shelf(root)
    with shelf.locked(key):
        writer = shelf.writing(key, {}, index, 2, (5,), Float16())
        said = torch.zeros(4, 5)
        writer.write(1, 4, Float16().encode(said, said, said))
    return writer.folder


@pytest.fixture
def store(tmp_path: Path, fill: Fill, key: str, index: Tensor) -> Path:
    """A store with a record, an unfinished one and one that was set aside."""
    root = tmp_path / "store" / "outputs"
    fill(root, TopK(3))
    folder = fill(root, key=OTHER)
    folder.rename(folder.with_name(f"{folder.name}.damaged-1"))
    unfinished(root, THIRD, index)
    return root.parent


def test_lists_what_is_kept(store: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--root", str(store)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [key[:32], "whole", "-", "11", "3", "5", "topk-3"] in [line[:7] for line in lines]
    assert [THIRD[:32], "unfinished", "-", "11", "2", "5", "float16"] in [
        line[:7] for line in lines
    ]
    assert [f"{OTHER[:32]}.damaged-1", "damaged", "-", "11"] in [line[:4] for line in lines]


def test_the_store_is_the_one_of_the_runs(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    assert main(["ls"]) == 0
    assert key[:32] not in capsys.readouterr().out
    monkeypatch.setenv("ENSEMBLE_KD_STORE", str(store))
    assert main(["ls"]) == 0
    assert key[:32] in capsys.readouterr().out
    monkeypatch.delenv("ENSEMBLE_KD_STORE")
    Path("outputs").mkdir()
    store.rename("outputs/store")
    assert main(["ls"]) == 0
    assert key[:32] in capsys.readouterr().out


def test_verify_finds_damage(store: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--root", str(store)]) == 0
    assert "1, of which 0 damaged" in capsys.readouterr().out
    shard = store / "outputs" / key[:32] / "view-0002-00000.bin"
    content = bytearray(shard.read_bytes())
    content[7] ^= 4
    seen = shard.stat()
    shard.write_bytes(content)
    # Even where size and time are as before.
    os.utime(shard, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert main(["verify", "--root", str(store)]) == 1
    said = capsys.readouterr()
    assert "1, of which 1 damaged" in said.out
    assert said.err.count("\n") == 1
    assert "view-0002-00000.bin: wrong digest" in said.err
    assert shard.exists()


def test_gc_says_what_it_would_free_and_frees_it_when_told(
    store: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = store / "outputs"
    before = sorted(path for path in root.rglob("*"))
    assert main(["gc", "--root", str(store)]) == 0
    said = capsys.readouterr().out
    assert "2 folders" in said
    assert "--yes" in said
    assert THIRD[:32] in said
    assert f"{OTHER[:32]}.damaged-1" in said
    assert key[:32] not in said
    after = [path for path in root.rglob("*") if path.suffix != ".lock"]
    assert after == [path for path in after if path in before]
    assert len(after) == len([path for path in before if path.suffix != ".lock"])
    assert main(["gc", "--root", str(store), "--yes"]) == 0
    assert "2 folders" in capsys.readouterr().out
    assert {path.name for path in root.iterdir() if not path.name.startswith(".")} == {key[:32]}
    assert not list((root / ".unfinished").iterdir())
    assert not list((root / ".removed").iterdir())
    assert Shelf(root).find(key) is not None
    assert main(["gc", "--root", str(store), "--yes"]) == 0
    assert "nothing" in capsys.readouterr().out


def test_gc_frees_the_bytes_that_it_says(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = store / "outputs"

    def size() -> int:
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())

    before = size()
    main(["gc", "--root", str(store), "--yes"])
    assert f"{before - size():,} bytes freed" in capsys.readouterr().out


def test_gc_removes_records_not_read_for_so_long(
    store: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = store / "outputs" / key[:32]
    gc = ["gc", "--root", str(store), "--yes", "--older-than", "2"]
    assert main(gc) == 0
    assert record.is_dir()
    long_ago = (record / "manifest.json").stat().st_mtime - 3 * 86400
    os.utime(record / "manifest.json", (long_ago, long_ago))
    assert main(["gc", "--root", str(store), "--yes", "--older-than", "4"]) == 0
    assert record.is_dir()
    capsys.readouterr()
    assert main([*gc[:3], *gc[4:]]) == 0
    assert key[:32] in capsys.readouterr().out
    assert record.is_dir()
    assert main(gc) == 0
    assert not record.exists()


def test_reading_keeps_a_record_young(store: Path, key: str) -> None:
    record = store / "outputs" / key[:32]
    os.utime(record / "manifest.json", (5, 5))
    assert Shelf(store / "outputs").find(key) is not None
    main(["gc", "--root", str(store), "--yes", "--older-than", "1"])
    assert record.is_dir()


def test_gc_leaves_alone_what_is_being_written(
    store: Path, index: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    root = store / "outputs"
    with Shelf(root).locked(THIRD):
        assert main(["gc", "--root", str(store), "--yes"]) == 2
        said = capsys.readouterr()
        assert "another process is at work on it" in said.err
        assert "1 folders" in said.out
    assert (root / ".unfinished" / THIRD[:32]).is_dir()
    assert not list(root.glob("*.damaged-*"))
    shelf = Shelf(root)
    with shelf.locked(THIRD):
        assert shelf.writing(THIRD, {}, index, 2, (5,), Float16()).written.sum() == 4


def test_gc_finishes_what_a_killed_one_began(store: Path, key: str) -> None:
    root = store / "outputs"
    (root / ".removed").mkdir()
    (root / key[:32]).rename(root / ".removed" / key[:32])
    assert main(["gc", "--root", str(store), "--yes"]) == 0
    assert not list((root / ".removed").iterdir())


def test_other_folders_are_nobodys_business(store: Path) -> None:
    mine = [store / "outputs" / "notes", store / "outputs" / ".unfinished" / "notes"]
    for folder in mine:
        folder.mkdir()
    assert main(["gc", "--root", str(store), "--yes", "--older-than", "0"]) == 0
    assert all(folder.is_dir() for folder in mine)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "ls|verify|gc|fill"),
        (["rm"], "rm"),
        (["gc", "--older-than", "soon"], "must be a number of days >= 0, got 'soon'"),
        (["gc", "--older-than", "-1"], "must be a number of days >= 0"),
        (["gc", "--older-than", "nan"], "must be a number of days >= 0"),
        (["ls", "--root", "nowhere"], "--root must be a folder that is there, got nowhere"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")


def test_runs_as_a_module(store: Path, key: str) -> None:
    command = [sys.executable, "-m", "ensemble_kd.cache", "ls", "--root", str(store)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert key[:32] in ran.stdout


def test_an_empty_store_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("ls", "verify", "gc"):
        assert main([command]) == 0
    assert capsys.readouterr().err == ""
    assert not Path("outputs").exists()


def test_formats_are_shown(tmp_path: Path, fill: Fill, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "outputs", Float32())
    main(["ls", "--root", str(tmp_path)])
    assert "float32" in capsys.readouterr().out

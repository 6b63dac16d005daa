"""Folders of stores that somebody else prepared, for the commands that look after them."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd.cache import Shelf
from ensemble_kd.cache.__main__ import main as cache
from ensemble_kd.cache.journal import Journal, at_work
from ensemble_kd.checkpoint.files import Checkpoints
from ensemble_kd.report.page.content import read_run
from ensemble_kd.store import Keyed, Store
from ensemble_kd.store.__main__ import main as store

KEY = "0123456789abcdef" * 2
COMMANDS = (["ls"], ["verify"], ["gc", "--yes"], ["gc", "--yes", "--older-than", "0"])
MARKERS = {"store": "provenance.json", "cache": "manifest.json"}


@pytest.fixture(params=["store", "cache"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Keyed, Path, Callable[..., None]]:
    """Where folders lie, one in which nothing may be touched, and what calls all commands."""
    root = tmp_path / "store"
    keyed = Store(root).keyed if request.param == "store" else Shelf(root / "outputs").keyed
    keyed.root.mkdir(parents=True)
    other = tmp_path / "other"
    (other / KEY).mkdir(parents=True)
    (other / KEY / MARKERS[request.param]).write_text("not yours")

    def call(*statuses: int) -> None:
        main = store if request.param == "store" else cache
        assert {main([*command, "--root", str(root)]) for command in COMMANDS} <= {*statuses}
        assert (other / KEY / MARKERS[request.param]).read_text() == "not yours"

    return keyed, other, call


@pytest.mark.parametrize("name", [".unfinished", ".removed", ".locks"])
def test_what_a_link_leads_to_is_not_removed(
    kept: tuple[Keyed, Path, Callable[..., None]], name: str, refused: Callable[..., str]
) -> None:
    keyed, other, call = kept
    (keyed.root / name).symlink_to(other)
    call(0)
    (keyed.root / KEY).mkdir()
    call(0, 1, 2)
    if name == ".unfinished":
        assert "got a link" in refused(lambda: keyed.unfinished(KEY))


@pytest.mark.parametrize("name", [KEY, f"{KEY}.damaged-1", f".unfinished/{KEY}", f".removed/{KEY}"])
def test_a_folder_that_lies_elsewhere_is_nobodys_business(
    kept: tuple[Keyed, Path, Callable[..., None]], name: str
) -> None:
    keyed, other, call = kept
    (keyed.root / name).parent.mkdir(exist_ok=True)
    (keyed.root / name).symlink_to(other / KEY)
    call(0)
    assert (keyed.root / name).is_symlink()


def test_pipes_links_and_folders_in_the_place_of_files(
    kept: tuple[Keyed, Path, Callable[..., None]],
) -> None:
    keyed, other, call = kept
    makers: dict[str, Callable[[Path], object]] = {
        "a": os.mkfifo,
        "b": Path.mkdir,
        "c": lambda path: path.symlink_to(path),
        "d": lambda path: path.write_text(json.dumps({"digest": 1, "files": {"x" * 300: ""}})),
    }
    for letter, make in makers.items():
        folder = keyed.root / (letter * 32)
        folder.mkdir()
        make(folder / keyed.marker)
    (keyed.root / ".locks" / f"{'a' * 32}.lock").mkdir(parents=True)
    (keyed.root / ".locks" / f"{'b' * 32}.lock").symlink_to(other / KEY / keyed.marker)
    call(0, 1, 2)


def test_odd_files_among_journals_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.lock").mkdir()
    assert list(Journal(tmp_path).news()) == []
    assert not at_work(tmp_path)


def test_a_checkpoint_holds_no_objects_and_is_a_file(
    tmp_path: Path, charge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": charge}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    (tmp_path / f"{5:012d}-{digest}.ckpt").write_bytes(buffer.getvalue())
    os.mkfifo(tmp_path / f"{6:012d}-{digest}.ckpt")
    (tmp_path / f"{7:012d}-{digest}.ckpt").symlink_to("/dev/zero")
    assert Checkpoints(tmp_path, "student").newest() is None
    assert "damaged checkpoint of stage student set aside" in capsys.readouterr().err


def test_pipes_in_the_folder_of_a_run_are_not_waited_for(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    os.mkfifo(tmp_path / "results.json")
    assert "got something else" in refused(lambda: read_run(tmp_path, "results.json"))

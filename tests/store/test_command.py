"""``python -m ensemble_kd.store``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torch import nn

from ensemble_kd.artefact import write_artefact
from ensemble_kd.store import Store
from ensemble_kd.store.__main__ import main

WHOLE, DAMAGED, CUT, RESUMABLE = ("ab" * 32, "cd" * 32, "ef" * 32, "12" * 32)
NODE = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}


def stored(store: Store, digest: str, name: str = "teacher/0") -> Path:
    with store.locked(digest), store.writing(digest) as unfinished:
        said = {"digest": digest, "name": name, "stage": {"student": NODE}, "parameters": 1234}
        write_artefact(unfinished, nn.Linear(3, 2), NODE, said)
    return store.folder(digest)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One network of each state: whole, set aside, cut off, and cut off with a checkpoint."""
    store = Store(tmp_path / "store")
    stored(store, WHOLE)
    (stored(store, DAMAGED) / "weights.safetensors").write_bytes(b"no")
    with store.locked(DAMAGED):
        assert store.find(DAMAGED) is None
    (store.keyed.unfinished(CUT)).mkdir(parents=True)
    (store.keyed.unfinished(RESUMABLE) / "checkpoint").mkdir(parents=True)
    return store


def states(store: Store) -> dict[str, str]:
    return {entry.folder.name[:2]: entry.kind for entry in store.keyed.entries()}


def test_lists_what_is_kept(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--root", str(store.root)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [WHOLE[:32], "whole", "teacher/0", "Linear", "1,234"] in [row[:5] for row in rows]
    shown = {row[0][:2]: row[1] for row in rows if len(row) > 4 and row[0][:2].isalnum()}
    assert {"cd": "damaged", "ef": "unfinished", "12": "resumable"}.items() <= shown.items()


def test_the_store_is_the_one_of_the_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls"]) == 0
    assert WHOLE[:32] not in capsys.readouterr().out
    monkeypatch.setenv("ENSEMBLE_KD_STORE", str(store.root))
    assert main(["ls"]) == 0
    assert WHOLE[:32] in capsys.readouterr().out


def test_verify_finds_damage_and_touches_nothing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--root", str(store.root)]) == 0
    weights = store.folder(WHOLE) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    before = states(store)
    assert main(["verify", "--root", str(store.root)]) == 1
    said = capsys.readouterr()
    assert "wrong digest" in said.err
    assert "1, of which 1 damaged" in said.out
    assert states(store) == before


def test_verify_finds_a_network_under_another_name(store: Store) -> None:
    store.folder(WHOLE).rename(store.folder("34" * 32))
    assert main(["verify", "--root", str(store.root)]) == 1


def test_gc_says_first_and_removes_only_what_is_of_no_use(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = states(store)
    assert main(["gc", "--root", str(store.root)]) == 0
    assert states(store) == before
    assert "would be freed" in capsys.readouterr().out
    assert main(["gc", "--root", str(store.root), "--yes"]) == 0
    assert states(store) == {"ab": "whole", "12": "unfinished"}
    assert f"{RESUMABLE[:32]} stays" in capsys.readouterr().out


def test_gc_removes_old_networks_and_not_those_that_were_just_used(store: Store) -> None:
    stored(store, "34" * 32)
    for digest in (WHOLE, "34" * 32):
        os.utime(store.folder(digest) / "provenance.json", (0, 0))
    with store.locked(WHOLE):
        assert store.find(WHOLE) is not None
    assert main(["gc", "--root", str(store.root), "--older-than", "1", "--yes"]) == 0
    assert states(store)["ab"] == "whole"
    assert "34" not in states(store)


def test_gc_keeps_what_somebody_is_at_work_on(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.locked(CUT):
        assert main(["gc", "--root", str(store.root), "--yes"]) == 2
    assert "another process is at work" in capsys.readouterr().err
    assert states(store)["ef"] == "unfinished"


def test_what_a_killed_gc_left_goes_with_the_next(store: Store) -> None:
    gone = store.root / ".removed" / WHOLE[:32]
    gone.parent.mkdir()
    store.folder(WHOLE).rename(gone)
    assert main(["gc", "--root", str(store.root), "--yes"]) == 0
    assert not gone.exists()


@pytest.mark.parametrize("said", [[], {"stage": []}, {"stage": {"student": 3}}, {"name": "[red]"}])
def test_a_stranger_among_them_is_listed_all_the_same(
    store: Store, said: object, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.folder(WHOLE) / "provenance.json").write_text(json.dumps(said))
    assert main(["ls", "--root", str(store.root)]) == 0
    shown = capsys.readouterr().out
    assert WHOLE[:32] in shown
    assert ("[red]" in shown) == (said == {"name": "[red]"})


def test_names_do_not_reach_the_terminal_as_commands(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"name": "\x1b[2J\x1b]0;title\x07"}
    (store.folder(WHOLE) / "provenance.json").write_text(json.dumps(said))
    assert main(["ls", "--root", str(store.root)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "?[2J?]0;title?" in shown


@pytest.mark.parametrize(
    "arguments", [["ls", "--root", "nowhere"], ["gc", "--older-than", "-1"], ["mend"], []]
)
def test_mistakes_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from ensemble_kd.artefact import load, read_artefact, write_artefact
from ensemble_kd.errors import UserError
from ensemble_kd.store import Store

NODE = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}
DIGEST = "ab" * 32


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 2)


def stored(root: Path, companions: nn.Module | None = None) -> Path:
    store = Store(root)
    with store.locked(DIGEST), store.writing(DIGEST) as unfinished:
        write_artefact(unfinished, network(), NODE, {"digest": DIGEST, "name": "net"}, companions)
    return store.folder(DIGEST)


def test_what_is_written_is_found_whole(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    artefact = Store(tmp_path).find(DIGEST)
    assert artefact is not None
    assert artefact.digest == DIGEST
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "network.yaml",
        "provenance.json",
    }
    loaded = load(folder)
    assert not loaded.training
    for name, weights in network().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weights)


def test_an_unknown_digest_is_not_found(tmp_path: Path) -> None:
    assert Store(tmp_path / "nowhere").find(DIGEST) is None
    assert not (tmp_path / "nowhere").exists()


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def cut_off() -> None:
        with store.writing(DIGEST) as unfinished:
            (unfinished / "weights.safetensors").write_bytes(b"half")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        cut_off()
    assert store.find(DIGEST) is None
    stored(tmp_path)
    assert store.find(DIGEST) is not None


@pytest.mark.parametrize("name", ["weights.safetensors", "network.yaml"])
def test_a_damaged_artefact_is_set_aside_and_never_used(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stored(tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert Store(tmp_path).find(DIGEST) is None
    said = capsys.readouterr().err
    assert "wrong digest" in said
    assert name in said
    aside = folder.with_name(f"{folder.name}.damaged-1")
    assert (aside / name).exists()
    stored(tmp_path)
    assert Store(tmp_path).find(DIGEST) is not None


def test_a_file_in_the_place_of_an_artefact_is_set_aside(tmp_path: Path) -> None:
    Store(tmp_path).folder(DIGEST).touch()
    assert Store(tmp_path).find(DIGEST) is None
    assert Store(tmp_path).folder(DIGEST).with_suffix(".damaged-1").is_file()
    stored(tmp_path)


def test_an_artefact_under_another_digest_is_not_used(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    other = "cd" * 32
    folder.rename(Store(tmp_path).folder(other))
    assert Store(tmp_path).find(other) is None


@pytest.mark.parametrize("missing", ["weights.safetensors", "network.yaml", "provenance.json"])
def test_a_missing_file_is_one_clear_line(tmp_path: Path, missing: str) -> None:
    folder = stored(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", "{}", '{"files": {}}', '{"files": {"../x": "0"}, "digest": "a"}']
)
def test_a_provenance_that_is_none_is_one_clear_line(tmp_path: Path, text: str) -> None:
    folder = stored(tmp_path)
    (folder / "provenance.json").write_text(text)
    with pytest.raises(UserError, match="provenance") as refusal:
        read_artefact(folder)
    assert "\n" not in str(refusal.value)


def test_paths_cannot_leave_the_folder(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    (tmp_path / "outside").write_text("")
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["files"]["../outside"] = "0"
    (folder / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(UserError, match="expected a file of the artefact"):
        read_artefact(folder)


def test_weights_that_do_not_fit_are_one_clear_line(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    with pytest.raises(UserError, match="do not fit") as refusal:
        load(folder, network=nn.Linear(4, 2))
    assert "\n" not in str(refusal.value)


def test_a_network_without_a_known_constructor_asks_for_one(tmp_path: Path) -> None:
    write_artefact(tmp_path, network(), None, {"digest": DIGEST})
    with pytest.raises(UserError, match="network="):
        load(tmp_path)
    loaded = load(tmp_path, network=nn.Linear(3, 2))
    assert torch.equal(loaded.weight, network().weight)  # type: ignore[arg-type]


def test_companions_are_stored_and_verified(tmp_path: Path) -> None:
    folder = stored(tmp_path, nn.ModuleDict({"student": network(), "peer": network(1)}))
    artefact = read_artefact(folder)
    restored = nn.ModuleDict({"student": network(5), "peer": network(6)})
    artefact.fill(restored, "companions.safetensors")
    assert torch.equal(restored["peer"].weight, network(1).weight)  # type: ignore[arg-type]


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"paths\.store: expected a folder"),
        Store(tmp_path / "file" / "store").locked(DIGEST),
    ):
        pass


def test_a_second_process_waits_for_the_lock(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ensemble_kd.store import Store\n"
        f"store = Store(Path({str(tmp_path)!r}))\n"
        "print('waiting', flush=True)\n"
        f"with store.locked({DIGEST!r}): print('found' if store.find({DIGEST!r}) else 'nothing')\n"
    )
    store = Store(tmp_path)
    with store.locked(DIGEST):
        second = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert second.stdout.readline() == "waiting\n"
        with store.writing(DIGEST) as unfinished:
            write_artefact(unfinished, network(), NODE, {"digest": DIGEST})
    said, _ = second.communicate()
    assert said == "found\n"


def test_who_waits_for_another_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensemble_kd.store.keyed.PATIENCE", 0.01)
    said: list[str] = []
    waits = threading.Event()

    def wait() -> None:
        with Store(tmp_path).locked(DIGEST, waits.set):
            said.append("mine")

    second = threading.Thread(target=wait)
    with Store(tmp_path).locked(DIGEST):
        second.start()
        waits.wait()
        assert said == []
    second.join()
    assert said == ["mine"]
    waits.clear()
    wait()  # nobody holds it
    assert not waits.is_set()


def test_what_was_cut_off_is_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def cut_off() -> None:
        with store.writing(DIGEST) as unfinished:
            (unfinished / "checkpoint").mkdir()
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        cut_off()
    with store.writing(DIGEST) as again:
        assert [path.name for path in again.iterdir()] == ["checkpoint"]


def test_a_full_disk_leaves_what_was_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "cd" * 32
    whole = stored(tmp_path)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        store = Store(tmp_path)
        with store.locked(other), store.writing(other) as unfinished:
            write_artefact(unfinished, network(), NODE, {"digest": other})

    with monkeypatch.context() as patched:
        patched.setattr("ensemble_kd.store.artefacts.flush", full)
        with pytest.raises(UserError, match=r"No space left.*same command goes on") as refusal:
            write()
    assert "\n" not in str(refusal.value)
    assert read_artefact(whole).digest == DIGEST
    assert Store(tmp_path).find(other) is None
    write()
    assert Store(tmp_path).find(other) is not None

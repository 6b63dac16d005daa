"""The other files of artefacts: weights that are none, paths that lead out, records that lie."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd import load
from ensemble_kd.files import file_digest
from ensemble_kd.teachers.sources import Artefact
from ensemble_kd.teachers.sources.source import Told

TOLD = Told((4,), ("ant", "bee", "cat"))


def changed(artefact: Path, **changes: Any) -> None:
    """Write other things into the record, and the right digests of the files that are there."""
    path = artefact / "provenance.json"
    said = json.loads(path.read_text())
    said["files"] |= {name: file_digest(artefact / name) for name in said["files"]}
    path.write_text(json.dumps({**said, **changes}))


def torch_file(held: Any) -> bytes:
    written = io.BytesIO()
    torch.save(held, written)
    return written.getvalue()


def zipped(*names: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return written.getvalue()


def tensors(header: Any, data: bytes = b"") -> bytes:
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(said)) + said + data


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


WEIGHTS: dict[str, Callable[[Any], bytes]] = {
    "pickle": pickle.dumps,
    "pickle_of_the_first_protocol": lambda charge: pickle.dumps(charge, protocol=0),
    "checkpoint": torch_file,
    "state_dict_with_a_charge": lambda charge: torch_file({"a": charge}),
    "zip": lambda _: zipped("../../escaped", "/absolute"),
    "nothing": lambda _: b"",
    "long_header": lambda _: struct.pack("<Q", 1 << 62) + b"{}",
    "negative_offsets": lambda _: tensors(entry(-8, 8, [4]), b"\0" * 16),
    "offsets_beyond_the_end": lambda _: tensors(entry(0, 1 << 40, [1 << 38]), b"\0" * 16),
    "vast_shape": lambda _: tensors(entry(0, 16, [1 << 62, 1 << 62]), b"\0" * 16),
    "unknown_type": lambda _: tensors(entry(0, 16, [4], "object"), b"\0" * 16),
    "deep_header": lambda _: tensors(b"[" * 100_000),
    "other_names": lambda _: tensors(entry(0, 16, [4]), b"\0" * 16),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none_are_refused(
    name: str, artefact: Path, charge: Any, refused: Callable[..., str]
) -> None:
    (artefact / "weights.safetensors").write_bytes(WEIGHTS[name](charge))
    changed(artefact)
    said = refused(lambda: load(artefact))
    assert "weights.safetensors" in said
    if name in ("pickle", "checkpoint", "state_dict_with_a_charge", "zip"):
        assert "nothing is unpickled" in said


FILES = {
    "absolute": "/etc/passwd",
    "device": "/dev/zero",
    "parent": "../outside.txt",
    "deep_parent": "a/../../outside.txt",
    "folder": ".",
    "parents": "..",
    "nothing": "",
    "zero": "a\0b",
    "long": "x" * 300,
    "control_characters": "x\n\x1b]0;owned\x07\u202e",
    "backslashes": "..\\outside.txt",
}


@pytest.mark.parametrize("name", FILES)
def test_a_record_names_no_file_outside_its_folder(
    name: str, artefact: Path, refused: Callable[..., str]
) -> None:
    outside = artefact.parent / "outside.txt"
    outside.write_text("secret")
    files = json.loads((artefact / "provenance.json").read_text())["files"]
    changed(artefact, files={**files, FILES[name]: file_digest(outside)})
    assert "expected a file of the artefact, found none" in refused(lambda: load(artefact))


@pytest.mark.parametrize("name", ["weights.safetensors", "network.yaml", "epoch-0001.safetensors"])
def test_links_do_not_lead_out_of_the_folder(
    name: str, artefact: Path, refused: Callable[..., str]
) -> None:
    outside = artefact.parent / "outside"
    source = artefact / name
    outside.write_bytes(source.read_bytes() if source.exists() else b"x")
    source.unlink(missing_ok=True)
    source.symlink_to(outside)
    assert "got a link" in refused(lambda: load(artefact))


@pytest.mark.parametrize("name", ["weights.safetensors", "network.yaml", "provenance.json"])
def test_what_is_no_plain_file_is_not_waited_for(
    name: str, artefact: Path, refused: Callable[..., str]
) -> None:
    (artefact / name).unlink()
    os.mkfifo(artefact / name)
    refused(lambda: load(artefact))
    (artefact / name).unlink()
    (artefact / name).mkdir()
    refused(lambda: load(artefact))


RECORDS = {
    "deep": "[" * 200_000,
    "a_list": "[]",
    "no_json": "{",
    "digest_is_a_node": '{"digest": {"_target_": "os.system"}, "files": {}}',
    "files_are_a_list": '{"digest": "x", "files": [["_target_", "os.system"]]}',
    "files_are_nodes": '{"digest": "x", "files": {"network.yaml": {"_target_": "os.mkdir"}}}',
    "binary": "\0\1",
    "pickle": "",
    "nothing": " ",
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_another_form_is_refused(
    name: str, artefact: Path, charge: Any, refused: Callable[..., str]
) -> None:
    held = pickle.dumps(charge) if name == "pickle" else RECORDS[name].encode()
    (artefact / "provenance.json").write_bytes(held)
    assert "provenance.json" in refused(lambda: load(artefact))


def test_nodes_in_a_record_are_only_said(artefact: Path, canary: Path) -> None:
    node = {"_target_": "os.mkdir", "path": str(canary)}
    changed(artefact, stage={"student": node}, classes=[node, "b", "c"], parents=node)
    load(artefact)
    Artefact(str(artefact)).load(TOLD)


def test_a_charge_that_is_unpickled_does_make_the_canary(charge: Any, canary: Path) -> None:
    """What all other tests here rest on."""
    pickle.loads(pickle.dumps(charge))
    assert canary.is_dir()
    canary.rmdir()

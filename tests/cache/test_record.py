from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ensemble_kd.cache import DamagedError, Float16, Float32, Format, Record, Sampled, TopK, verify
from ensemble_kd.errors import UserError

Fill = Callable[..., Path]
ROW = 20
FORMATS = [Float32(), Float16(), TopK(2), Sampled(4, 1)]
SHARDS = [ROW, 3 * ROW, 2**20]


@pytest.mark.parametrize("into_memory", [False, True])
@pytest.mark.parametrize("shard_bytes", SHARDS)
def test_reads_what_was_written_in_any_order(
    tmp_path: Path, fill: Fill, index: Tensor, said: Tensor, shard_bytes: int, into_memory: bool
) -> None:
    record = Record(fill(tmp_path, shard_bytes=shard_bytes), into_memory)
    generator = torch.Generator().manual_seed(0)
    for size in (0, 1, 7, 200):
        places = torch.randint(len(index), (size,), generator=generator)
        views = torch.randint(3, (size,), generator=generator)
        assert torch.equal(record.read(index[places], views), said[views, places])
        for view in range(3):
            same = torch.full_like(views, view)
            assert torch.equal(record.read(index[places], same), said[view, places])


@pytest.mark.parametrize("into_memory", [False, True])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_reads_as_it_decodes(
    tmp_path: Path, fill: Fill, index: Tensor, said: Tensor, form: Format, into_memory: bool
) -> None:
    record = Record(fill(tmp_path, form, 3 * form.row_bytes(5)), into_memory)
    assert record.format.name == form.name
    for view in range(3):
        views = torch.full_like(index, view)
        expected = form.decode(form.encode(said[view], index, views), 5)
        assert torch.equal(record.read(index, views), expected)


def test_says_what_it_holds(tmp_path: Path, fill: Fill, index: Tensor, key: str) -> None:
    folder = fill(tmp_path, shard_bytes=4 * ROW)
    record = Record(folder)
    assert (record.samples, record.views, record.shape) == (11, 3, (5,))
    assert record.key == key
    assert record.described == {"teacher": "t"}
    assert torch.equal(record.index, index)
    shards = [f"view-{view:04d}-{number:05d}.bin" for view in range(3) for number in range(3)]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "index.npy", *shards}
    assert [(folder / name).stat().st_size // ROW for name in shards] == [4, 4, 3] * 3
    verify(folder)


@pytest.mark.parametrize("sample", [-(2**63), -1, 2, 22, 23, 10**6, 2**63 - 1])
@pytest.mark.parametrize("shard_bytes", SHARDS)
def test_a_sample_that_is_not_there_is_one_clear_line(
    tmp_path: Path, fill: Fill, shard_bytes: int, sample: int
) -> None:
    record = Record(fill(tmp_path, shard_bytes=shard_bytes))
    with pytest.raises(UserError, match=f"sample {sample} is not among the 11") as refusal:
        record.read(torch.tensor([0, sample]), torch.tensor([2, 1]))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("view", [-(2**63), -1, 3, 2**63 - 1])
@pytest.mark.parametrize("sample", [0, 2])
def test_a_view_that_is_not_there_is_one_clear_line(
    tmp_path: Path, fill: Fill, view: int, sample: int
) -> None:
    record = Record(fill(tmp_path))
    with pytest.raises(UserError, match=rf"a view in \[0, 3\), got {view}$"):
        record.read(torch.tensor([21, sample]), torch.tensor([2, view]))


def test_sparse_numbers_need_no_table(
    tmp_path: Path, fill: Fill, said: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = torch.tensor([0, 5, 10**12, 10**12 + 1, *range(2 * 10**12, 2 * 10**12 + 6), 2**62])
    monkeypatch.setitem(fill.__globals__, "INDEX", far)
    monkeypatch.setitem(
        fill.__globals__,
        "outputs",
        lambda view, start, stop: said[view, start:stop],
    )
    record = Record(fill(tmp_path))
    places = torch.tensor([10, 3, 0, 4])
    assert torch.equal(record.read(far[places], torch.ones_like(places)), said[1, places])
    for absent in (-1, 1, 10**12 + 2, 2**62 + 1):
        with pytest.raises(UserError, match=f"sample {absent} is not among"):
            record.read(torch.tensor([absent]), torch.tensor([0]))


def test_what_was_read_may_be_changed(tmp_path: Path, fill: Fill, index: Tensor) -> None:
    for shard_bytes in SHARDS:
        folder = fill(tmp_path / str(shard_bytes), shard_bytes=shard_bytes)
        for into_memory in (False, True):
            record = Record(folder, into_memory)
            views = torch.arange(len(index)) % 3
            before = record.read(index, views)
            record.read(index, views).zero_()
            assert torch.equal(record.read(index, views), before)
        verify(folder)


def test_copies_open_the_files_anew(tmp_path: Path, fill: Fill, index: Tensor) -> None:
    record = Record(fill(tmp_path), into_memory=True)
    views = torch.zeros_like(index)
    text = pickle.dumps(record)
    assert len(text) < 500
    for again in (pickle.loads(text), copy.deepcopy(record)):
        assert torch.equal(again.read(index, views), record.read(index, views))


def test_mapping_many_shards_keeps_no_file_open(tmp_path: Path, fill: Fill) -> None:
    folder = fill(tmp_path, shard_bytes=ROW)
    before = len(os.listdir("/proc/self/fd"))
    record = Record(folder)
    assert len(os.listdir("/proc/self/fd")) == before
    assert record.samples == 11


def test_removal_does_not_reach_who_reads(tmp_path: Path, fill: Fill, index: Tensor) -> None:
    record = Record(fill(tmp_path))
    before = record.read(index, torch.zeros_like(index))
    shutil.rmtree(record.folder)
    assert torch.equal(record.read(index, torch.zeros_like(index)), before)


SHARD = "view-0001-00001.bin"


@pytest.mark.parametrize("name", ["manifest.json", "index.npy", SHARD])
def test_a_missing_file_is_damage(tmp_path: Path, fill: Fill, name: str) -> None:
    folder = fill(tmp_path, shard_bytes=4 * ROW)
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=name) as refusal:
        Record(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["index.npy", SHARD])
@pytest.mark.parametrize("keep", [0, 1, -1])
def test_a_file_that_was_cut_off_is_damage(
    tmp_path: Path, fill: Fill, name: str, keep: int
) -> None:
    folder = fill(tmp_path, shard_bytes=4 * ROW)
    (folder / name).write_bytes((folder / name).read_bytes()[:keep])
    with pytest.raises(DamagedError, match=name) as refusal:
        Record(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["index.npy", SHARD])
def test_a_flipped_bit_is_found(tmp_path: Path, fill: Fill, name: str) -> None:
    folder = fill(tmp_path, shard_bytes=4 * ROW)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DamagedError, match=f"{name}: wrong digest"):
        verify(folder)


def test_an_index_of_another_kind_is_damage(tmp_path: Path, fill: Fill, index: Tensor) -> None:
    folder = fill(tmp_path)
    for wrong in (index.float(), index[1:], index[None]):
        np.save(folder / "index.npy", wrong.numpy())
        with pytest.raises(DamagedError, match="expected 11 int64"):
            Record(folder)


def rewrite(path: Path, **change: object) -> None:
    """Change a manifest and its digest."""
    said = {**json.loads(path.read_text()), **change}
    del said["digest"]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**said, "digest": digest}))


def test_a_manifest_that_was_changed_is_damage(tmp_path: Path, fill: Fill) -> None:
    path = fill(tmp_path) / "manifest.json"
    before = path.read_text()
    for old, new in [('"t"', '"u"'), ('"views": 3', '"views": 2')]:
        assert old in before
        path.write_text(before.replace(old, new))
        with pytest.raises(DamagedError, match=r"manifest\.json.*wrong digest"):
            Record(path.parent)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 3},
        {"format": "float64"},
        {"format": 3},
        {"samples": 0},
        {"views": 2.0},
        {"shape": [True]},
        {"shape": []},
        {"shards": {"view-0000-00000.bin": 3}},
        {"shards": None},
        {"described": []},
        {"unknown": 1},
        {"key": None},
    ],
)
def test_a_manifest_that_is_none_is_damage(
    tmp_path: Path, fill: Fill, change: dict[str, object]
) -> None:
    path = fill(tmp_path) / "manifest.json"
    rewrite(path, **change)
    with pytest.raises(DamagedError, match=r"manifest\.json") as refusal:
        Record(path.parent)
    assert "\n" not in str(refusal.value)
    assert "digest: it was changed" not in str(refusal.value)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"not json", b"\xff\xfe"])
def test_a_manifest_that_is_no_json_is_damage(tmp_path: Path, fill: Fill, text: bytes) -> None:
    path = fill(tmp_path) / "manifest.json"
    path.write_bytes(text)
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        Record(path.parent)


def test_a_manifest_without_a_shard_is_damage(tmp_path: Path, fill: Fill) -> None:
    path = fill(tmp_path) / "manifest.json"
    shards = json.loads(path.read_text())["shards"]
    del shards["view-0002-00000.bin"]
    rewrite(path, shards=shards)
    with pytest.raises(DamagedError, match="view-0002-00000"):
        verify(path.parent)

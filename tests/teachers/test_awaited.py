"""Teachers whose answers another process gives: here the same one plays both parts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.cache import Float32, Shelf
from ensemble_kd.teachers import Awaited, Frozen, Remembered, growing
from ensemble_kd.teachers.filling import DiskSlot
from ensemble_kd.teachers.growing import Growing
from ensemble_kd.types import Batch, Progress

KEY = "0123456789abcdef" * 4
INDEX = torch.arange(0, 40, 2)
VIEWS, SIZE, CLASSES = 2, 4, 3
START = Progress(0, 0, 0.0)


class Counted(nn.Module):
    """A teacher that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.asked += 1
        return torch.cos(inputs * torch.arange(1, CLASSES + 1))


class Scene(NamedTuple):
    """A student's side, the feeder's slot, and whether the feeder lives."""

    awaited: Awaited
    network: Counted
    feeder: DiskSlot
    alive: list[bool]


def slot(root: Path) -> DiskSlot:
    shelf = Shelf(root, 100)
    with shelf.locked(KEY):
        writer = shelf.writing(KEY, {}, INDEX, VIEWS, (CLASSES,), Float32())
    return DiskSlot(writer, Float32(), INDEX)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    network, alive = Counted(), [True]
    known = Growing(Shelf(tmp_path, 100), slot(tmp_path), lambda: alive[0])
    awaited = Awaited([Frozen(network)], [Remembered(known, {})], SIZE, [known], None)
    return Scene(awaited, network, slot(tmp_path), alive)


def batch(view: int, *positions: int) -> Batch:
    index = INDEX[list(positions)]
    inputs = (index[:, None] + 100 * view).float()
    return Batch(inputs, torch.zeros_like(index), index, view=torch.full_like(index, view))


def expected(asked: Batch) -> Tensor:
    return torch.cos(asked.inputs * torch.arange(1, CLASSES + 1))


def feed(scene: Scene, asked: Batch) -> None:
    scene.feeder.write_batch(asked, expected(asked))


def test_before_the_feeder_begins_the_teacher_is_asked_and_the_feeder_hears_of_it(
    scene: Scene,
) -> None:
    asked = batch(1, 3, 0, 19, 7)
    (said,) = scene.awaited(asked, START)
    assert torch.equal(said.logits, expected(asked))
    assert scene.network.asked == 1
    assert scene.feeder.lacks_batch(asked)
    scene.feeder.writer.refresh()
    assert not scene.feeder.lacks_batch(asked)
    (again,) = scene.awaited(asked, START)
    assert torch.equal(again.logits, said.logits)
    assert scene.network.asked == 1


def test_what_the_feeder_wrote_is_read_and_what_it_did_not_is_waited_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = batch(0, 5, 1, 2, 11), batch(0, 4, 12, 0, 19)
    feed(scene, first)
    waits = []

    def written_meanwhile(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            feed(scene, second)

    monkeypatch.setattr(time, "sleep", written_meanwhile)
    for asked in (first, second):
        (said,) = scene.awaited(asked, START)
        assert torch.equal(said.logits, expected(asked))
    assert len(waits) == 3
    assert scene.network.asked == 0


@pytest.mark.parametrize("end", ["dead", "stuck"])
def test_nobody_is_waited_for_who_has_gone_or_gives_no_sign(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    feed(scene, batch(0, 5, 1, 2, 11))
    clock = [0.0]
    scene.alive[0] = end == "stuck"

    def passing(seconds: float) -> None:
        clock[0] += 1.0
        assert clock[0] < 100

    monkeypatch.setattr(time, "sleep", passing)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    (_,) = scene.awaited(batch(0, 5, 1, 2, 11), START)
    asked = batch(1, 0, 1, 2, 3)
    (said,) = scene.awaited(asked, START)
    assert torch.equal(said.logits, expected(asked))
    assert scene.network.asked == 1
    assert clock[0] == (0 if end == "dead" else growing.PATIENCE + 1)


def test_the_finished_record_is_read_as_any_other(scene: Scene, tmp_path: Path) -> None:
    for view in range(VIEWS):
        for start in range(0, 20, SIZE):
            feed(scene, batch(view, *range(start, start + SIZE)))
    with Shelf(tmp_path).locked(KEY):
        scene.feeder.writer.finish()
    for asked in (batch(1, 19, 3, 0, 7), batch(0, 1, 2, 3, 4)):
        (said,) = scene.awaited(asked, START)
        assert torch.equal(said.logits, expected(asked))
    assert scene.network.asked == 0


def test_a_record_that_is_finished_between_a_look_and_a_read_is_read(
    scene: Scene, tmp_path: Path
) -> None:
    asked = batch(1, 19, 3, 0, 7)
    known = scene.awaited.growing[0]
    for view in range(VIEWS):
        for start in range(0, 20, SIZE):
            feed(scene, batch(view, *range(start, start + SIZE)))
    assert asked.view is not None
    assert known.there(asked.index, asked.view)
    with Shelf(tmp_path).locked(KEY):
        scene.feeder.writer.finish()
    assert torch.equal(known.read(asked.index, asked.view), expected(asked))


def test_batches_that_do_not_recur_are_answered_live(scene: Scene) -> None:
    short = batch(0, 1, 2)
    for asked in (short, batch(0, 5, 1, 2, 11)._replace(view=None)):
        (said,) = scene.awaited(asked, START)
        assert torch.equal(said.logits, expected(asked))
    assert scene.network.asked == 2
    scene.feeder.writer.refresh()
    assert not scene.feeder.writer.written.any()

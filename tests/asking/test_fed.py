"""A run whose teachers answer in another process, and what happens when that one dies."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kd.asking.crew import Crew
from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.engine import Engine, Product
from ensemble_kd.plan import make_plan
from ensemble_kd.store import Store
from ensemble_kd.teachers import Awaited

RUN = (
    *("teacher.members=[mlp_small,mlp_small]", "epochs=3", "teacher.epochs=1", "data.cycle=2"),
    *("+data.source.limit=400", "controls=[]"),
)


def trained(folder: str, *overrides: str) -> dict[str, Product]:
    config = compose([*RUN, *overrides, f"paths.store={folder}"])
    keeping: Any = build(plain(config.cache, "cache"), "cache")
    store = Store(Path(folder))
    return Engine(make_plan(config), store, Path("run"), logger=False, keeping=keeping).products()


def same_students(one: dict[str, Product], other: dict[str, Product]) -> bool:
    mine, theirs = (each["student"].learner.student.state_dict() for each in (one, other))
    return all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("end", [pytest.param("lives", marks=pytest.mark.slow), "killed"])
def test_the_student_is_that_of_live_teachers_whatever_becomes_of_the_other_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], end: str
) -> None:
    """The first batch waits until the other process has written something, or is dead."""
    started: list[Crew] = []
    start, forward = Crew.start, Awaited.forward

    def noted(self: Crew) -> None:
        start(self)
        started.append(self)
        if end == "killed":
            self._workers[0][0].send_signal(signal.SIGKILL)
            self._workers[0][0].wait()

    def late(self: Awaited, *arguments: Any) -> Any:
        for known in self.growing:
            while end == "lives" and not known._news() and started[0].alive:
                known._look()
            known._heard = True
        monkeypatch.setattr(Awaited, "forward", forward)
        return forward(self, *arguments)

    monkeypatch.setattr(Crew, "start", noted)
    monkeypatch.setattr(Awaited, "forward", late)
    fed = trained("fed", "cache=disk", "teacher.device=process")
    printed = capfd.readouterr().err
    assert len(started) == 1
    assert same_students(fed, trained("live", "cache=off"))
    complaint = "warning: a process that asks teachers stopped: it was killed"
    assert printed.count(complaint) == (end == "killed")


def test_what_is_known_already_needs_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained("store", "cache=disk")

    def refuse(self: Crew) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(Crew, "start", refuse)
    again = trained("store", "cache=disk", "teacher.device=process", "epochs=2")
    assert again["student"].artefact.digest != first["student"].artefact.digest


def test_further_workers_help_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(Crew, "start", lambda self: sizes.append(self.size))
    helped = trained("helped", "cache=disk", "cache.workers=3")
    assert sizes == [2]
    assert same_students(helped, trained("live", "cache=off"))

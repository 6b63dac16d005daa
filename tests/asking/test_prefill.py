"""``python -m ensemble_kd.cache fill``: what a run will ask its teachers is asked ahead of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ensemble_kd.asking import crew, prefill
from ensemble_kd.asking.crew import Crew
from ensemble_kd.asking.prefill import assist, fill
from ensemble_kd.cache.__main__ import main
from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.plan import make_plan
from ensemble_kd.run import carry_out
from ensemble_kd.teachers import Frozen

RUN = (
    *("teacher.members=[mlp_small,mlp_small]", "epochs=2", "teacher.epochs=1", "data.cycle=2"),
    *("+data.source.limit=300", "paths.store=store", "controls=[]"),
    *("report.plots=false", "report.page=false", "report.table=false", "report.onnx=false"),
)


def trained(*overrides: str) -> None:
    config = compose([*RUN, *overrides])
    carry_out(make_plan(config), config, Path("run"))


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that teachers will be asked about."""
    sizes: list[int] = []
    answer = Frozen.own_answer

    def noted(self: Frozen, batch: Any) -> Any:
        sizes.append(len(batch.index))
        return answer(self, batch)

    monkeypatch.setattr(Frozen, "own_answer", noted)
    return sizes


def test_a_run_that_follows_asks_no_teacher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(RUN)
    said = capsys.readouterr().out
    assert "teacher/0  1 epoch" in said
    assert "[3/3] student  teacher/0, teacher/1 answered once: 2 views of" in said
    assert said.splitlines()[-1] == "all that the run will ask its teachers is kept: store"
    before = content(Path("store/outputs"))
    sizes = asked(monkeypatch)
    trained("cache=disk")
    fill(RUN)  # a second time there is nothing to do
    assert max(sizes) <= 8  # a few samples, by which everything is tried out
    assert content(Path("store/outputs")) == before


def test_assistants_are_trained_where_they_teach_and_the_student_is_not() -> None:
    fill((*RUN, "strategy=assistant", "strategy.assistants=[mlp_small]"))
    names = [
        json.loads(path.read_text())["name"] for path in Path("store").glob("*/provenance.json")
    ]
    assert sorted(names) == ["assistant/0", "teacher/0", "teacher/1"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cache=memory"], "cache: expected disk, whose records other runs find, got memory"),
        (["data.cycle=null"], "what the teachers of stage student are asked never comes again"),
        (["strategy=mutual", "strategy.taught=false"], "asks its teachers"),
        (["nonsense=1"], "nonsense"),
    ],
)
def test_what_cannot_be_filled_is_one_line(
    overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fill", *RUN, *overrides]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not Path("store").exists()


def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prefill, "fill", interrupted)
    assert main(["fill"]) == 130
    printed = capsys.readouterr().err
    assert printed == "interrupted: what was written stays; the same command goes on from there\n"


def test_a_worker_fills_what_the_process_that_started_it_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a worker is told leads it to the same records, in whatever order it fills them."""
    config = compose([*RUN, "cache=disk", "teacher.device=process"])
    make_plan(config)
    told = Crew(config, 0, "student", ahead=True)
    fill((*RUN, "paths.store=other"))
    assist(told.said, "student", 1, ahead=True)
    here, there = content(Path("store/outputs")), content(Path("other/outputs"))
    assert here
    assert here.items() <= there.items()  # there the other splits are filled too


class Fake:
    """A process that ends as it is told."""

    def __init__(self, command: list[str], stderr: Any, **_: Any) -> None:
        self.pid = id(self)
        self.stdin = None
        self.returncode: int | None = None
        self.terminated = False
        self.complaints = stderr

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.terminated = True

    def wait(self, timeout: float | None = None) -> int:
        return 0


def test_workers_that_fail_are_named_once_and_the_others_end_with_the_context(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Fake)
    config = compose([*RUN, "cache=disk"])
    make_plan(config)
    with Crew(config, 2) as workers:
        (one, _), (other, _) = workers._workers
        assert workers.alive
        one.complaints.write(b"Traceback\nerror: store: disk full\n")  # type: ignore[attr-defined]
        one.returncode = 2
        assert workers.alive
        assert workers.alive
        other.returncode = 0
        assert not workers.alive
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "asks teachers stopped: store: disk full; what it left is done without it" in printed
    assert one.terminated
    assert workers._workers == []
    monkeypatch.setattr(crew, "PATIENCE", 0.0)
    with pytest.raises(UserError), Crew(config, 1) as stopped:  # noqa: PT012  # within it
        stopped._workers[0][0].returncode = 1
        raise UserError("the disk is full")
    assert capsys.readouterr().err == ""  # that is said once, by whoever started them


def test_overrides_may_stand_on_both_sides_of_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("ensemble_kd.asking.prefill.fill", lambda *given: asked.extend(given))
    assert main(["fill", "a=1", "--workers", "2", "b=2"]) == 0
    assert asked == [["a=1", "b=2"], [], 2]
    with pytest.raises(SystemExit):
        main(["fill", "a=1", "--nothing", "b=2"])
    with pytest.raises(SystemExit):
        main(["ls", "b=2"])

"""How teachers answer in whole runs: live and from what was kept, to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from ensemble_kd.asking import teamwork
from ensemble_kd.asking.answers import _batches, _serves_what_recurs
from ensemble_kd.asking.recall import Recall
from ensemble_kd.build import build
from ensemble_kd.config import compose, plain
from ensemble_kd.data import Batches, Digits, InMemory, Recurring
from ensemble_kd.engine import CURVES, Engine, Product
from ensemble_kd.errors import UserError
from ensemble_kd.evaluation import Evaluation
from ensemble_kd.plan import make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.run import carry_out
from ensemble_kd.store import Store
from ensemble_kd.teachers import Keeping, filling, quick
from ensemble_kd.types import Batch

RUN = (
    *("teacher.members=[cnn_small,mlp_small]", "epochs=4", "teacher.epochs=2"),
    *("data.cycle=2", "+data.source.limit=500"),
)


def trained(folder: str, where: str, *overrides: str) -> dict[str, Product]:
    config = compose([*RUN, *overrides, f"cache={where}"])
    chosen: Keeping = build(plain(config.cache, "cache"), "cache")
    store = Store(Path(folder))
    return Engine(make_plan(config), store, Path("run"), logger=False, keeping=chosen).products()


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("strategy=assistant", "strategy.assistants=[cnn_small]"),
        ("strategy=mutual", "controls=[]"),
        ("teacher=halves", "controls=[]"),
        ("objective=hint", "objective.teacher_layers=[[stages],[layers.0]]", "controls=[]"),
    ],
    ids=["parallel", "assistant", "mutual", "halves", "hint"],
)
def test_a_run_with_kept_outputs_is_the_live_run_to_the_last_bit(
    overrides: tuple[str, ...], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = trained("kept", where, *overrides)
    said = capsys.readouterr().out
    live = trained("live", "off", *overrides)
    assert "answered once" in said
    assert "answered once" not in capsys.readouterr().out
    for name, product in kept.items():
        mine, other = product.learner.student.state_dict(), live[name].learner.student.state_dict()
        assert all(torch.equal(mine[key], other[key]) for key in other), name


def test_what_is_on_disk_serves_later_runs_and_any_change_misses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = trained("store", "disk")
    root = Path("store/outputs")
    keys = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    assert len(keys) == 2  # one for each teacher
    shutil.rmtree(first["student"].artefact.folder)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a teacher was asked again")

    with monkeypatch.context() as patched:
        patched.setattr(teamwork, "fill", refuse)
        again = trained("store", "disk", "controls=[]")
    mine = first["student"].learner.student.state_dict()
    other = again["student"].learner.student.state_dict()
    assert all(torch.equal(mine[key], other[key]) for key in mine)
    for change in ("data.cycle=1", "seed=1", "batch_size=32", "teacher.epochs=1"):
        before = len(list(root.iterdir()))
        trained("store", "disk", change, "controls=[]")
        assert len(list(root.iterdir())) > before, change


@pytest.mark.parametrize("format", ["float16", "topk-3", "sampled-12-seed-1"])
def test_a_smaller_format_is_another_student_that_learns_all_the_same(format: str) -> None:
    exact = trained("store", "disk", "controls=[]")["student"]
    small = trained("store", "disk", f"cache.format={format}", "controls=[]")["student"]
    assert small.artefact.digest != exact.artefact.digest
    mine, other = exact.learner.student.state_dict(), small.learner.student.state_dict()
    assert any(not torch.equal(mine[key], other[key]) for key in mine)
    points = read_points(small.artefact.folder / CURVES)
    soft = [point.value for point in points if point.name.endswith("/soft")]
    assert 0 <= soft[-1] < soft[0]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_teachers_are_asked_in_the_precision_of_the_training(precision: str) -> None:
    overrides = ("controls=[]", f"trainer.precision={precision}")
    kept, live = trained("kept", "disk", *overrides), trained("live", "off", *overrides)
    mine, other = (each["student"].learner.student.state_dict() for each in (kept, live))
    assert all(torch.equal(mine[key], other[key]) for key in other)


def evaluated(folder: str, where: str, *overrides: str) -> Any:
    unseen = ("report.table=false", "report.plots=false", "report.onnx=false")
    own = (f"cache={where}", f"paths.store={where}", *unseen, *overrides)
    config = compose([*RUN, *own])
    results: Any = carry_out(make_plan(config), config, Path(folder)).results
    for predictor in results["predictors"].values():
        del predictor["milliseconds_per_1000"], predictor["latency"]
    return {key: results[key] for key in ("predictors", "pairs", "verdict")}


def test_evaluation_uses_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluated("first", "disk")
    assert evaluated("live", "off") == first
    records = [path for path in Path("disk/outputs").iterdir() if path.name[0] != "."]
    assert len(records) == 6  # two teachers, asked about three splits

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a teacher was asked again")

    monkeypatch.setattr(teamwork, "fill", refuse)
    given: list[list[str]] = []
    measure = Evaluation.measure

    def listening(self: Evaluation, *arguments: Any) -> Any:
        given.append(sorted(arguments[-2]))
        return measure(self, *arguments)

    monkeypatch.setattr(Evaluation, "measure", listening)
    assert evaluated("second", "disk") == first
    assert given == [["teacher/0", "teacher/1"]] * 2


def test_the_runtime_is_measured_only_where_that_pays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = trained("plain", "off", "teacher.runtime=plain", "controls=[]")["student"]
    trained("auto", "off", "controls=[]")
    assert "runtime" not in capsys.readouterr().out
    monkeypatch.setattr(quick, "WORTHWHILE", 0.0)
    auto = trained("long", "off", "controls=[]")["student"]
    assert "teachers: runtime" in capsys.readouterr().out
    mine, other = auto.learner.student.state_dict(), plain.learner.student.state_dict()
    assert all(torch.equal(mine[key], other[key]) for key in other)


def test_that_compared_features_keep_teachers_plain_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    features = ("objective=hint", "objective.teacher_layers=[[stages],[layers.0]]")
    run = (*features, "controls=[]", "teacher.runtime=exact")
    line = "teachers: runtime plain: their features are compared"
    for where in ("off", "memory", "disk"):
        trained(where, where, *run)
        assert capsys.readouterr().out.count(line) == 1, where
    shutil.rmtree(trained("disk", "disk", *run)["student"].artefact.folder)
    capsys.readouterr()
    trained("disk", "disk", *run)
    assert line not in capsys.readouterr().out  # nobody is asked any more


def test_batches_without_a_length_are_not_counted_and_failures_are_not_hidden() -> None:
    class Endless:
        def train_dataloader(self) -> Any:
            return iter(())

    class Unwilling(Endless):
        def __len__(self) -> int:
            raise NotImplementedError

        def train_dataloader(self) -> Any:
            return self

    class Failing(Endless):
        def train_dataloader(self) -> Any:
            raise TypeError("an argument is missing")

    assert _batches(InMemory(Digits(limit=500), batch_size=35), epochs=3) == 3 * 10
    assert _batches(Endless(), epochs=3) is None
    assert _batches(Unwilling(), epochs=3) is None
    with pytest.raises(TypeError, match="an argument is missing"):
        _batches(Failing(), epochs=3)


def test_what_a_user_changes_in_batches_is_answered_live() -> None:
    class Mixing(InMemory):
        def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
            return batch._replace(inputs=batch.inputs.flip(0))

    class Serving(InMemory):
        def train_dataloader(self) -> Batches:
            return super().train_dataloader()

    class Telling(Serving):
        def recurring(self, split: Literal["train", "val", "test"] = "train") -> Recurring | None:
            return super().recurring(split)

    source = Digits(limit=100)
    assert _serves_what_recurs(InMemory(source), "train_dataloader")
    assert not _serves_what_recurs(Mixing(source), "train_dataloader")
    assert not _serves_what_recurs(Serving(source), "train_dataloader")
    assert _serves_what_recurs(Serving(source), "val_dataloader")
    assert _serves_what_recurs(Telling(source), "train_dataloader")
    assert not _serves_what_recurs(object(), "train_dataloader")


def test_teachers_are_evaluated_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the training hears them in a runtime that rounds differently."""
    asked: list[tuple[str, str]] = []
    fill = filling.fill

    def noted(live: Any, slots: Any, recurring: Any, *rest: Any) -> None:
        asked.append((type(live).__name__, "held out" if recurring.ragged else "train"))
        fill(live, slots, recurring, *rest)

    monkeypatch.setattr(teamwork, "fill", noted)
    evaluated("run", "disk", "teacher.runtime=fast", "controls=[]")
    assert asked == [("Quick", "train"), ("Ensemble", "held out"), ("Ensemble", "held out")]


def test_a_run_that_is_done_is_evaluated_whatever_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_split = Recall.of

    def full(self: Recall, teachers: Any, digests: Any, asked: Any, *rest: Any) -> Any:
        if asked.split == "test":
            raise UserError("store: the outputs to be kept take more than there is")
        return on_split(self, teachers, digests, asked, *rest)

    live = evaluated("live", "off")
    monkeypatch.setattr(Recall, "of", full)
    assert evaluated("full", "disk") == live
    assert "teachers are evaluated live" in capsys.readouterr().err


def test_teachers_that_a_strategy_uses_otherwise_are_not_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained("store", "memory", "strategy=local_targets", "controls=[]")
    assert "answered once" not in capsys.readouterr().out


def test_with_little_room_some_teachers_answer_live(capsys: pytest.CaptureFixture[str]) -> None:
    one = 2 * 350 * 10 * 4
    kept = trained("kept", "auto", f"cache.limit={one}", "controls=[]")
    assert "  teacher/0 answered once" in capsys.readouterr().out
    live = trained("live", "off", "controls=[]")
    mine, other = (each["student"].learner.student.state_dict() for each in (kept, live))
    assert all(torch.equal(mine[key], other[key]) for key in other)

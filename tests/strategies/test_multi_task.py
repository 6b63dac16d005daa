from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.networks.multi_head import MultiHead, Tasked
from ensemble_kd.objectives import Annealed, Label, Term
from ensemble_kd.plan import make_plan
from ensemble_kd.stage import Given, Stage
from ensemble_kd.strategies import MultiTask, OfTask, OneTask, Parallel, Strategy
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress, Turn
from ensemble_kd.weightings import Uniform

START = Progress(0, 0, 0.0)
SIZES = (3, 2)
FIRST = (0, 3)
TASKS = {"kind": [0, 1, 2], "odd": [0, 1, 0]}
LAST = Stage(
    name="student",
    student={"_target_": "small"},
    teachers=(),
    strategy={"_target_": "taught"},
    optimizers={"default": {"lr": 1}, "other": {"lr": 2}},
    trainer={},
    data="",
    labelled_only=False,
    epochs=3,
    select="last",
    seed=7,
)
ALONE = {"_target_": "alone"}


def network(seed: int, only: int | None = None) -> MultiHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MultiHead(nn.Linear(4, 5).double(), SIZES, only)


@pytest.fixture
def tasked() -> Batch:
    """Four samples, each for both tasks; one of them has no label."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 4, generator=generator, dtype=torch.float64).repeat_interleave(2, 0)
    target = torch.tensor([0, 3, 2, 3, UNLABELLED, UNLABELLED, 1, 4])
    task = torch.tensor([0, 1] * 4)
    return Batch(Tasked(inputs, task), target, torch.arange(8), target != UNLABELLED)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(z - max(row)) for z in row]
    return [power / math.fsum(powers) for power in powers]


def reference_bam(student: MultiHead, teachers: list[MultiHead], batch: Batch, r: float) -> float:
    """Mean over the labelled samples of CE(r y + (1 - r) p_teacher, p), each in its own task."""
    losses = []
    for b, label in enumerate(batch.target.tolist()):
        x, task = batch.inputs.inputs[b], int(batch.inputs.task[b])
        own = slice(FIRST[task], FIRST[task] + SIZES[task])
        q = softmax(student.network(x)[own].tolist())
        p = softmax(teachers[task].network(x)[own].tolist())
        hard = 0.0 if label == UNLABELLED else -math.log(q[label - FIRST[task]])
        soft = -math.fsum(t * math.log(s) for t, s in zip(p, q, strict=True))
        losses.append(r * hard + (1 - r) * soft)
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_it_is_the_loss_of_the_paper(tasked: Batch, fraction: float) -> None:
    student, specialists = network(0), [network(1, 0), network(2, 1)]
    strategy = Parallel({"annealed": Term(Annealed())}, OfTask())
    teachers = Ensemble([Frozen(each) for each in specialists])
    (turn,) = strategy.turns(student, teachers, tasked, Progress(0, 0, fraction))
    want = reference_bam(student, specialists, tasked, fraction)
    assert turn.terms["annealed"].item() == pytest.approx(want, rel=1e-6)
    turn.terms["annealed"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert all(p.grad is None for each in specialists for p in each.parameters())


def test_each_sample_hears_the_teacher_of_its_task(tasked: Batch) -> None:
    logits = torch.zeros(8, 5, dtype=torch.float64)
    said = (Output(logits), Output(logits))
    weights = OfTask()(said, Output(logits), tasked, START)
    assert weights.dtype == torch.float64
    assert weights.tolist() == [[1, 0] * 4, [0, 1] * 4]
    nobody = Batch(Tasked(tasked.inputs.inputs[:0], tasked.inputs.task[:0]), *tasked[1:3])
    assert OfTask()(said, Output(logits[:0]), nobody, START).shape == (2, 0)


def test_a_task_without_a_teacher_is_refused(tasked: Batch) -> None:
    logits = torch.zeros(8, 5)
    with pytest.raises(ValueError, match="a teacher for each task, got 1 for task 1"):
        OfTask()((Output(logits),), Output(logits), tasked, START)
    plain = tasked._replace(inputs=tasked.inputs.inputs)
    with pytest.raises(ValueError, match="must carry the task of each sample, got Tensor"):
        OfTask()((Output(logits),), Output(logits), plain, START)


class Hearing(Strategy):
    """Remembers what it was given."""

    views = 3

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []
        self.weight = nn.Parameter(torch.zeros(()))

    def meet(self, student: nn.Module) -> None:
        self.heard.append("meet")

    def begin(self, student: nn.Module, teachers: Ensemble) -> None:
        self.heard.append("begin")

    def players(self, student: nn.Module) -> dict[str, list[nn.Parameter]]:
        return {"student": [], "other": [self.weight]}

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        return {"student": self.deliverable(student), "other": student}

    def deliverable(self, student: nn.Module) -> nn.Module:
        return nn.Identity()

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        self.heard.append(batch)
        yield Turn("student", {})
        yield Turn("other", {})

    def validated(self, said: Mapping[str, Output], batch: Batch, progress: Progress) -> None:
        self.heard.append((said, batch))


@pytest.mark.parametrize("task", [0, 1])
def test_one_task_is_another_strategy_on_its_samples(tasked: Batch, task: int) -> None:
    inner, student = Hearing(), network(0)
    strategy = OneTask(task, inner)
    assert strategy.views == 3
    strategy.meet(student)
    strategy.begin(student, Ensemble())
    assert list(strategy.players(student)) == ["student", "other"]
    assert list(strategy.predictors(student)) == ["student", "other"]
    assert isinstance(strategy.deliverable(student), nn.Identity)
    assert [turn.player for turn in strategy.turns(student, Ensemble(), tasked, START)] == [
        "student",
        "other",
    ]
    logits = torch.arange(16.0).view(8, 2)
    strategy.validated({"student": Output(logits)}, tasked, START)
    met, begun, batch, (said, validated) = inner.heard
    assert (met, begun) == ("meet", "begin")
    for some in (batch, validated):
        assert some.index.tolist() == list(range(task, 8, 2))
        assert some.inputs.task.tolist() == [task] * 4
        assert some.target.tolist() == tasked.target[task::2].tolist()
    assert torch.equal(said["student"].logits, logits[task::2])


def test_a_batch_without_samples_of_the_task_moves_nothing(tasked: Batch) -> None:
    student = network(0, 1)
    lone = Batch(Tasked(tasked.inputs.inputs[:1], tasked.inputs.task[:1]), *tasked[1:3])
    strategy = OneTask(1, Parallel({"label": Term(Label())}, Uniform()))
    lone = lone._replace(target=lone.target[:1], index=lone.index[:1])
    (turn,) = strategy.turns(student, Ensemble(), lone, START)
    turn.terms["label"].backward()
    assert turn.terms["label"].item() == 0.0
    assert all(not p.grad.any() for p in student.parameters() if p.grad is not None)


def test_the_stages_are_a_teacher_for_each_task_and_the_student() -> None:
    chain = MultiTask(TASKS, [{"_target_": "large"}], ALONE).stages(LAST)
    assert [stage.name for stage in chain] == ["teacher/kind", "teacher/odd", "student"]
    assert [stage.teachers for stage in chain] == [(), (), ("teacher/kind", "teacher/odd")]
    for number, stage in enumerate(chain[:2]):
        assert stage.student["network"] == {"_target_": "large"}  # type: ignore[index]
        assert stage.student["tasks"] == [3, 2]  # type: ignore[index]
        assert stage.student["only"] == number  # type: ignore[index]
        assert stage.strategy["task"] == number  # type: ignore[index]
        assert stage.strategy["inner"] == ALONE  # type: ignore[index]
        assert stage.optimizers == {"default": {"lr": 1}}
    assert chain[2].student["network"] == LAST.student  # type: ignore[index]
    assert chain[2].student["only"] is None  # type: ignore[index]
    assert chain[2].strategy == LAST.strategy
    assert len({stage.seed for stage in chain}) == 3
    assert MultiTask(TASKS, [ALONE], ALONE).mixtures() == {
        "specialists": ("teacher/kind", "teacher/odd")
    }


def test_every_task_may_have_a_network_of_its_own() -> None:
    chain = MultiTask(TASKS, [{"_target_": "a"}, {"_target_": "b"}], ALONE).stages(LAST)
    networks = [stage.student["network"]["_target_"] for stage in chain]  # type: ignore[index]
    assert networks == ["a", "b", "small"]


def test_a_student_given_as_an_object_has_its_own_heads() -> None:
    given = Given(network(0))
    *_, last = MultiTask(TASKS, [ALONE], ALONE).stages(replace(LAST, student=given))
    assert last.student is given


@pytest.mark.parametrize(
    ("tasks", "count", "words"),
    [
        (None, 1, "tasks must be those of the data, got none: choose data=digits_tasks"),
        ({}, 1, "got none"),
        (TASKS, 3, "networks must be one for all tasks or 2, one for each, got 3"),
        (TASKS, 0, "networks must be one for all tasks or 2, one for each, got 0"),
    ],
)
def test_bad_arguments_are_refused(
    tasks: dict[str, list[int]] | None, count: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        MultiTask(tasks, [ALONE] * count, ALONE)


def test_data_without_tasks_is_one_line() -> None:
    with pytest.raises(UserError, match=r"strategy\.chain: tasks .* choose data=digits_tasks"):
        make_plan(compose(["strategy=multi_task", "data=digits"]))


def test_a_run_learns_both_tasks_from_their_teachers(trained: Callable[..., Any]) -> None:
    """And is nearer to them than the same student on the same batches without their part."""
    run = ["strategy=multi_task", "epochs=6", "data.samples.labelled=400", "controls=[]"]
    done = trained(*run)
    alone = trained(*run, "strategy.matched.share.start=1.0")
    names = {"teacher/digit", "teacher/parity", "specialists", "student"}
    assert set(done.networks) == names
    batches = list(done.plan.data.val_dataloader())
    target = torch.cat([batch.target for batch in batches])
    task = torch.cat([batch.inputs.task for batch in batches])
    networks = {**done.networks, "alone": alone.networks["student"]}
    with torch.no_grad():
        p = {
            name: torch.cat([network(batch.inputs) for batch in batches]).softmax(-1)
            for name, network in networks.items()
        }
    right = {
        name: [float((said.argmax(-1) == target)[task == t].float().mean()) for t in (0, 1)]
        for name, said in p.items()
    }
    # Two heads in one network: good at both, while each specialist only guesses at the other task.
    assert right["student"][0] > 0.6
    assert right["student"][1] > 0.7
    assert right["teacher/digit"][1] < 0.65
    assert right["teacher/parity"][0] < 0.3
    own = [right["teacher/digit"][0], right["teacher/parity"][1]]
    assert right["specialists"] == pytest.approx(own)

    taught = torch.where((task == 0)[:, None], p["teacher/digit"], p["teacher/parity"])
    apart = {name: float((p[name] - taught).abs().sum(-1).mean()) for name in ("student", "alone")}
    assert apart["student"] < 0.9 * apart["alone"]
    assert {metric for stage, metric in done.curves if stage == "student"} == {
        "student/annealed",
        "student/val_accuracy",
    }

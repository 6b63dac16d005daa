from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.networks import Cnn, Mlp, cut
from ensemble_kd.networks.connector import Connector
from ensemble_kd.plan import make_plan
from ensemble_kd.strategies import StudentFriendly
from ensemble_kd.teachers import Ensemble
from ensemble_kd.types import UNLABELLED, Batch, Progress, Turn

START = Progress(0, 0, 0.0)
INPUTS = (1, 6, 6)
LAYERS: dict[str, Any] = {
    "teacher_layers": ["stages.0", "stages.1"],
    "student_layers": ["stages.1", "pool"],
}


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double()


def cnn(seed: int, *widths: int) -> nn.Module:
    return seeded(lambda: Cnn(INPUTS, 4, widths=widths), seed)


def made(
    teacher: nn.Module | None = None, student: nn.Module | None = None, **options: Any
) -> tuple[StudentFriendly, nn.Module]:
    teacher = teacher or cnn(0, 4, 5, 6)
    strategy = StudentFriendly(student or cnn(1, 2, 3), INPUTS, **{**LAYERS, **options})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        strategy.meet(teacher)
    return strategy, teacher


def terms_of(strategy: StudentFriendly, teacher: nn.Module, batch: Batch) -> dict[str, Tensor]:
    (turn,) = strategy.turns(teacher, Ensemble(), batch, START)
    assert isinstance(turn, Turn)
    assert turn.player == "student"
    return turn.terms


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    return [each / math.fsum(powers) for each in powers]


def reference_label(logits: Tensor, batch: Batch) -> float:
    rows = zip(logits.tolist(), batch.target.tolist(), strict=True)
    values = [-math.log(softmax(row, 1.0)[y]) for row, y in rows if y != UNLABELLED]
    return math.fsum(values) / len(values)


def reference_soft(teacher: Tensor, branch: Tensor, temperature: float) -> float:
    values = []
    for row, other in zip(teacher.tolist(), branch.tolist(), strict=True):
        pairs = zip(softmax(row, temperature), softmax(other, temperature), strict=True)
        values.append(math.fsum(p * math.log(p / q) for p, q in pairs))
    return temperature**2 * math.fsum(values) / len(values)


@pytest.mark.parametrize("weights", [(1.0, 3.0, 1.0), (0.5, 0.0, 2.0)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_its_losses_are_the_paper_s(
    images: Batch, weights: tuple[float, float, float], temperature: float
) -> None:
    of_teacher, soft, of_branch = weights
    strategy, teacher = made(
        teacher_weight=of_teacher,
        soft_weight=soft,
        branch_weight=of_branch,
        temperature=temperature,
    )
    terms = terms_of(strategy, teacher, images)
    # In train mode, as above: statistics are those of the batch.
    first = teacher.get_submodule("stages.0")(images.inputs)
    second = teacher.get_submodule("stages.1")(first)
    logits = teacher(images.inputs)
    expected = {"label": of_teacher * reference_label(logits, images)}
    for number, feature in ((1, first), (2, second)):
        own = strategy.branches[number - 1](feature)
        expected[f"branch/{number}/soft"] = soft * reference_soft(logits, own, temperature)
        expected[f"branch/{number}/label"] = of_branch * reference_label(own, images)
    assert {n: v.item() for n, v in terms.items()} == pytest.approx(expected, rel=1e-10)


def test_a_branch_is_what_the_student_has_above_its_layer_behind_an_adapter() -> None:
    student = cnn(1, 2, 3)
    strategy, _ = made(student=student)
    for branch, at, (wide, narrow) in zip(
        strategy.branches, LAYERS["student_layers"], [(4, 2), (5, 3)], strict=True
    ):
        adapter, head = cast(nn.Sequential, branch)
        connector, norm, active = cast(nn.Sequential, adapter)
        assert isinstance(connector, Connector)
        assert isinstance(connector.layer, nn.Conv2d)
        assert (connector.layer.in_channels, connector.layer.out_channels) == (wide, narrow)
        assert connector.layer.kernel_size == (1, 1)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(active, nn.ReLU)
        own = cut(student, at).head.state_dict()
        assert all(torch.equal(own[name], value) for name, value in head.state_dict().items())
        assert not {id(p) for p in head.parameters()} & {id(p) for p in student.parameters()}


def received(network: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters()]


def test_the_teacher_is_not_detached(images: Batch) -> None:
    for term in ("branch/1/soft", "branch/2/soft"):
        strategy, teacher = made()
        terms_of(strategy, teacher, images)[term].backward()
        assert all(received(teacher)), term  # through its logits, its classifier too
        mine = int(term[7]) - 1
        assert all(received(strategy.branches[mine]))
        assert not any(received(strategy.branches[1 - mine]))
    strategy, teacher = made()
    terms_of(strategy, teacher, images)["branch/1/label"].backward()
    assert all(received(teacher.get_submodule("stages.0")))
    assert not any(received(teacher.get_submodule("stages.1")))
    assert not any(received(teacher.get_submodule("classifier")))


def test_one_player_steps_the_teacher_and_its_branches_and_delivers_the_teacher() -> None:
    student = cnn(1, 2, 3)
    strategy, teacher = made(student=student)
    ((name, parameters),) = strategy.players(teacher).items()
    assert name == "student"
    everything = [*teacher.parameters(), *strategy.branches.parameters()]
    assert [id(p) for p in parameters] == [id(p) for p in everything]
    assert strategy.deliverable(teacher) is teacher
    assert list(strategy.predictors(teacher)) == ["student"]


def test_vectors_have_a_linear_adapter(images: Batch) -> None:
    teacher = seeded(lambda: Mlp(INPUTS, 4, hidden=(8, 8)), 0)
    student = seeded(lambda: Mlp(INPUTS, 4, hidden=(5,)), 1)
    strategy, _ = made(teacher, student, teacher_layers=["layers.0"], student_layers=["classifier"])
    adapter = cast(nn.Sequential, cast(nn.Sequential, strategy.branches[0])[0])
    assert isinstance(adapter[1], nn.BatchNorm1d)
    terms = terms_of(strategy, teacher, images)
    assert all(value.isfinite() for value in terms.values())


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_it_stays_finite(images: Batch, scale: float) -> None:
    strategy, teacher = made()
    far = images._replace(inputs=images.inputs * scale)
    with torch.no_grad():
        for part in (teacher, *strategy.branches):
            list(part.parameters())[-2].mul_(scale)
    terms = terms_of(strategy, teacher, far)
    torch.stack(list(terms.values())).sum().backward()
    assert all(value.isfinite() for value in terms.values())
    parameters = strategy.players(teacher)["student"]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_without_labels_only_the_divergences_count(images: Batch) -> None:
    unknown = torch.full_like(images.target, UNLABELLED)
    unlabelled = images._replace(target=unknown, mask=torch.zeros(7, dtype=torch.bool))
    strategy, teacher = made()
    for name, value in terms_of(strategy, teacher, unlabelled).items():
        assert (value.item() == 0.0) == name.endswith("label"), name


def test_meeting_leaves_both_networks_as_they_were() -> None:
    student, teacher = cnn(1, 2, 3), cnn(0, 4, 5, 6)
    before = copy.deepcopy((student.state_dict(), teacher.state_dict()))
    made(teacher, student)
    for old, new in zip(before, (student.state_dict(), teacher.state_dict()), strict=True):
        assert all(torch.equal(old[name], value) for name, value in new.items())
    assert student.training
    assert teacher.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"student_layers": ["pool"]}, "one layer for each of teacher_layers"),
        ({"student_layers": [], "teacher_layers": []}, "at least one"),
        ({"soft_weight": -1.0}, "soft_weight must be a finite number >= 0, got -1"),
        ({"teacher_weight": -1.0}, "weight must be a finite number >= 0, got -1"),
        ({"temperature": 0.0}, "temperature must be a positive finite number, got 0"),
        ({"teacher_layers": ["stages.0", "stages.8"]}, "has no module 'stages.8'"),
        ({"student_layers": ["stages.1", "stages.8"]}, "has no module 'stages.8'"),
        ({"student_layers": ["stages.0", "pool"]}, "nothing runs before 'stages.0'"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**options)


def test_teacher_and_student_must_have_the_same_classes() -> None:
    student = seeded(lambda: Cnn(INPUTS, 3, widths=(2, 3)), 1)
    with pytest.raises(ValueError, match="the classes of the student, got 4 beside 3"):
        made(student=student)


def test_a_mistake_is_one_line_before_anything_is_trained() -> None:
    fresh = StudentFriendly(cnn(1, 2, 3), INPUTS, **LAYERS)
    with pytest.raises(ValueError, match="must meet the network"):
        next(fresh.turns(cnn(0, 4, 5), Ensemble(), cast(Batch, None), START))
    with pytest.raises(UserError, match="Mlp has no module") as refusal:
        make_plan(compose(["strategy=student_friendly", "teacher=unlike3"]))
    assert "\n" not in str(refusal.value)


def test_on_digits_a_teacher_s_layers_serve_a_student_better(
    trained: Callable[..., Any],
) -> None:
    """Between two such teachers: with what branches say to it, it ends nearer to its branches."""
    run = (
        "strategy=student_friendly",
        "teacher=single",
        "controls=[]",
        "epochs=2",
        "teacher.epochs=6",
    )
    apart = []
    for weight in (3, 0):
        done = trained(*run, f"strategy.soft_weight={weight}")
        assert list(done.networks) == ["teacher/0", "ensemble", "student"]
        losses = {name for stage, name in done.curves if stage == "teacher/0"}
        assert losses == {
            "student/label",
            *(f"branch/{n}/{term}" for n in (1, 2) for term in ("soft", "label")),
            "student/val_accuracy",
        }
        learner = done.products["teacher/0"].learner
        strategy = cast(StudentFriendly, learner.strategy)
        inputs = torch.cat([each.inputs for each in done.plan.data.val_dataloader()])
        teacher = done.networks["teacher/0"]
        with torch.no_grad():
            p = teacher(inputs).log_softmax(-1)
            q = strategy.branches[0](teacher.get_submodule("stages.0")(inputs)).log_softmax(-1)
        apart.append((p.exp() * (p - q)).sum(-1).mean().item())
        assert done.accuracies["teacher/0"] > 0.85
        assert type(learner.deliverable()).__name__ == "Cnn"
    assert apart[0] < 0.8 * apart[1]

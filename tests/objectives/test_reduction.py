"""Every shipped objective on whole batches and on their halves, with and without labels."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ensemble_kd.config import compose
from ensemble_kd.networks.cut import resting
from ensemble_kd.objectives import Objective, Term
from ensemble_kd.paths import conf_dir
from ensemble_kd.plan import make_plan
from ensemble_kd.rehearsal import acquaint
from ensemble_kd.strategies import Parallel
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import assemble, frozen, study
from ensemble_kd.types import Batch, Output, Progress

OPTIONS = sorted(path.stem for path in (conf_dir() / "objective").glob("*.yaml"))
OF_THE_BATCH = {"correlation", "dist", "pkt", "rkd", "semckd", "similarity"}
"""Those whose value for a sample depends on which others are in its batch."""
OF_TEXTS = {"distilbert", "minilm", "mobilebert", "pkd", "simplified_tinybert", "tinybert"}
"""Those that look inside of networks which read texts."""
START = Progress(0, 0, 0.0)


class Scene(NamedTuple):
    """Everything that the terms of an objective see."""

    terms: dict[str, Term]
    student: Output
    teachers: tuple[Output, ...]
    batch: Batch


@pytest.fixture(scope="module", params=OPTIONS)
def option(request: pytest.FixtureRequest) -> str:
    """The tests of one objective come one behind the other, so that its scene is made once."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def scene(option: str, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return made(option, tmp_path_factory.mktemp("scene"))


def made(option: str, folder: Path) -> Scene:
    strategy = "strategy=teacher_free" if option == "virtual" else "strategy=parallel"
    networks_and_data = ["teacher.members=[cnn_small,cnn_small]"]
    if option in OF_TEXTS:
        networks_and_data = on_texts(option, folder)
    overrides = [f"objective={option}", *networks_and_data, strategy, f"paths.store={folder}"]
    plan = make_plan(compose(overrides))
    stage = next(each for each in plan.stages if each.name == "student")
    learner = assemble(stage)
    networks = [assemble(each).student for each in plan.stages[:2]] if stage.teachers else []
    ensemble = Ensemble(frozen(learner.strategy, networks))
    batch = next(iter(plan.data.train_dataloader()))
    acquaint(stage, learner, ensemble, batch)
    study(learner.strategy, ensemble, plan.data, torch.device("cpu"))
    assert isinstance(learner.strategy, Parallel)
    lesson = learner.strategy.lesson
    with resting(learner.student), torch.no_grad():
        student = lesson.hear(learner.student, batch)
    terms: Any = dict(copy.deepcopy(lesson.terms).eval().items())
    return Scene(terms, student, ensemble(batch, START), batch)


def on_texts(option: str, folder: Path) -> list[str]:
    """Overrides for networks that read texts of unlike length, some of which have labels."""
    draw = random.Random(0)
    lines = ["sentence,label"]
    for number in range(110):
        words = " ".join(draw.choices("abcdefgh", k=draw.randint(1, 9)))
        lines.append(f"{words},{number % 3}")
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    student, teacher = "bert_tiny", "bert_mini"
    if option == "mobilebert":
        student, teacher = "mobilebert", "ib_bert"
    return [
        "data=text",
        f"data.source.path={folder}/texts.csv",
        "data.source.text=[sentence]",
        "data.tokenizer.size=40",
        "data.labelled=40",
        f"student={student}",
        f"teacher.members=[{teacher},{teacher}]",
    ]


def rows(scene: Scene, start: int, stop: int) -> Scene:
    """Some samples of a scene."""

    def cut(said: Output) -> Output:
        return Output(
            said.logits[start:stop], {name: f[start:stop] for name, f in said.features.items()}
        )

    b = scene.batch
    mask = None if b.mask is None else b.mask[start:stop]
    inputs = pytree.tree_map(lambda part: part[start:stop], b.inputs)
    batch = Batch(inputs, b.target[start:stop], b.index[start:stop], mask)
    return Scene(scene.terms, cut(scene.student), tuple(map(cut, scene.teachers)), batch)


def doubled(scene: Scene) -> Scene:
    """The same in double precision, where what is left of rounding does not matter."""

    def wider(said: Output) -> Output:
        return Output(said.logits.double(), {n: f.double() for n, f in said.features.items()})

    terms = {name: copy.deepcopy(term).double() for name, term in scene.terms.items()}
    return Scene(terms, wider(scene.student), tuple(map(wider, scene.teachers)), scene.batch)


def values(objective: Objective, scene: Scene) -> Tensor:
    count, samples = len(scene.teachers), len(scene.batch.target)
    weights = scene.student.logits.new_full((count, samples), 1 / max(count, 1))
    found: Tensor = objective(scene.student, scene.teachers, weights, scene.batch, START)
    return found


def test_a_batch_is_its_halves(scene: Scene, option: str) -> None:
    whole = doubled(scene)
    known = whole.batch.mask
    assert known is not None
    assert 0 < int(known.sum()) < len(known)
    for name, term in whole.terms.items():
        # A first step comes before: constants that are made of a whole batch (crd's) stay then.
        term.objective.train()
        values(term.objective, whole)
        term.objective.settle()
        term.objective.eval()
        together = values(term.objective, whole)
        apart = torch.cat(
            [values(term.objective, rows(whole, *part)) for part in ((0, 20), (20, 64))]
        )
        counted = known if term.objective.needs_labels else torch.ones_like(known)
        if name == option and option in OF_THE_BATCH:
            assert not torch.allclose(together[counted], apart[counted], rtol=1e-4, atol=1e-7)
            continue
        torch.testing.assert_close(together[counted], apart[counted], rtol=1e-9, atol=1e-9)
        weights = together.new_full((len(whole.teachers), 64), 1 / max(len(whole.teachers), 1))
        scalar = term(whole.student, whole.teachers, weights, whole.batch, START)
        mean = together[counted].mean() * term.weight * term.schedule(0.0)
        torch.testing.assert_close(scalar, mean, rtol=1e-4, atol=1e-6)


def rounded(scene: Scene, dtype: torch.dtype, scale: float = 1.0) -> tuple[Scene, Scene]:
    """The scene in half precision, features times a scale; and the same values in single."""

    def to(said: Output, *dtypes: torch.dtype) -> Output:
        logits, features = said.logits, {name: scale * f for name, f in said.features.items()}
        for each in dtypes:
            logits, features = logits.to(each), {name: f.to(each) for name, f in features.items()}
        return Output(logits, features)

    def cast(*dtypes: torch.dtype) -> Scene:
        teachers = tuple(to(teacher, *dtypes) for teacher in scene.teachers)
        return scene._replace(student=to(scene.student, *dtypes), teachers=teachers)

    return cast(dtype), cast(dtype, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_compared_in_single(scene: Scene, dtype: torch.dtype) -> None:
    """As the same values in single precision are, which the halves were rounded from."""
    half, single = rounded(scene, dtype)
    for name, term in half.terms.items():
        counted = half.batch.mask if term.objective.needs_labels else slice(None)
        found = values(term.objective, half)[counted]
        exact = values(term.objective, single)[counted]
        assert found.dtype == torch.float32, name
        assert torch.isfinite(found).all()
        assert (exact != 0).any()
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_does_not_reach_a_term(scene: Scene, dtype: torch.dtype) -> None:
    """Features so large that their products in half precision would be infinite, or coarse."""
    half, single = rounded(scene, dtype, scale=100.0)
    count, samples = len(half.teachers), len(half.batch.target)
    weights = torch.full((count, samples), 1 / max(count, 1))
    for name, term in half.terms.items():
        with torch.autocast("cpu", dtype=dtype):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
            found = term(half.student, half.teachers, weights.to(dtype), half.batch, START)
        exact = term(
            single.student, single.teachers, weights.to(dtype).float(), single.batch, START
        )
        assert found.dtype == torch.float32, name
        assert torch.isfinite(found)
        assert bool(found != 0) == (term.weight != 0)
        assert torch.equal(found, exact)

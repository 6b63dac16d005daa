from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ensemble_kd.objectives import Label, Material, Soft, Term
from ensemble_kd.schedules import Linear
from ensemble_kd.types import Batch, Output, Progress

FOLDER = Path(__file__).parents[2] / "conf" / "objective"
FILES = sorted(FOLDER.rglob("*.yaml"))
START = Progress(0, 0, 0.0)


def loaded(path: Path) -> DictConfig:
    """A file on top of those that it begins with."""
    own = OmegaConf.load(path)
    assert isinstance(own, DictConfig)
    begun = [
        loaded(FOLDER / f"{name}.yaml") for name in own.pop("defaults", []) if name != "_self_"
    ]
    merged = OmegaConf.merge(*begun, own)
    assert isinstance(merged, DictConfig)
    return merged


def composed(path: Path, **changes: Any) -> DictConfig:
    """A file in the place where it is composed."""
    root = OmegaConf.create({"objective": loaded(path)})
    root.objective = OmegaConf.merge(root.objective, changes)
    return root


def built(path: Path, **changes: Any) -> dict[str, Term]:
    return dict(instantiate(composed(path, **changes).objective.terms))


def said(taps: Sequence[str]) -> Output:
    """Logits, and a feature map for each tap; of a network for texts a sequence, or one token."""
    return Output(torch.randn(4, 3), {tap: torch.randn(4, *shape(tap)) for tap in taps})


def shape(tap: str) -> tuple[int, ...]:
    if not tap.startswith("body"):
        return (5, 4, 4)
    return (8,) if tap.endswith(".first") else (6, 8)


def answers(teacher: Output) -> Callable[[int, Batch], Output]:
    """A teacher who always says the same."""
    return lambda number, batch: teacher


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_opens_with_what_it_is(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert not second.startswith("#")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_gives_losses(path: Path) -> None:
    batch = Batch(None, torch.tensor([0, 1, 2, 0]), torch.arange(4))
    for term in built(path).values():
        objective = term.objective
        student, teacher = said(objective.student_taps()), said(objective.teacher_taps(0))
        objective.meet(student, (teacher,))
        objective.study(Material(partial(iter, [batch]), answers(teacher)))
        loss = term(student, (teacher,), torch.ones(1, 4), batch, START)
        assert loss.shape == ()
        assert loss > 0 or term.weight == 0


def test_the_keys_at_the_top_reach_their_places() -> None:
    terms = built(
        FOLDER / "kd.yaml", temperature=3.0, label_weight=0.1, soft_weight=0.9, merge="logits"
    )
    assert list(terms) == ["label", "soft"]
    label, soft = terms["label"].objective, terms["soft"].objective
    assert isinstance(label, Label)
    assert isinstance(soft, Soft)
    assert (terms["label"].weight, terms["soft"].weight) == (0.1, 0.9)
    assert soft.temperature(0.0) == 3.0
    assert soft.merge == "logits"


def test_the_temperature_can_be_a_schedule() -> None:
    schedule = {"_target_": "ensemble_kd.schedules.Linear", "start": 4.0, "end": 1.0}
    root = composed(FOLDER / "kd.yaml")
    root.objective.temperature = schedule
    soft = instantiate(root.objective.terms)["soft"].objective
    assert isinstance(soft.temperature.value, Linear)
    assert soft.temperature(0.5) == 2.5


def test_a_term_can_be_scheduled() -> None:
    schedule = {"_target_": "ensemble_kd.schedules.RampUp", "until": 0.5}
    terms = built(FOLDER / "kd.yaml", terms={"soft": {"schedule": schedule}})
    assert terms["soft"].schedule(0.5) == 1.0
    assert terms["soft"].schedule(0.0) < 0.01


def test_labels_alone_need_no_teacher() -> None:
    terms = built(FOLDER / "label.yaml")
    assert not any(term.objective.needs_teachers for term in terms.values())

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import ensemble_kd.weightings as shelf
from ensemble_kd.weightings import Gradient, Reinforced, Weighting

FOLDER = Path(__file__).parents[2] / "conf" / "weighting"
FILES = sorted(FOLDER.rglob("*.yaml"))


def built(path: Path, **objective: Any) -> Weighting:
    """What a file describes, in the place where it is composed."""
    root = OmegaConf.create({"seed": 7, "data": {"classes": 5}, "objective": objective})
    root["weighting"] = OmegaConf.load(path)
    weighting = instantiate(root.weighting)
    assert isinstance(weighting, Weighting)
    return weighting


def test_every_weighting_has_a_file_of_its_name() -> None:
    names = {name.lower() for name in shelf.__all__ if name != "Weighting"}
    assert {path.stem for path in FILES} == names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_describes_a_weighting(situation: Callable[..., Any], path: Path) -> None:
    weighting = built(path, temperature=2.0)
    assert type(weighting).__name__.lower() == path.stem
    assert getattr(weighting, "seed", 7) == 7
    if weighting.needs_accuracies:
        weighting.measure([0.1, 0.2, 0.3])
    assert weighting(*situation()).shape == (3, 4)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_opens_with_what_it_is(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert not second.startswith("#")


@pytest.mark.parametrize("name", ["gradient", "reinforced"])
def test_the_temperature_is_that_of_the_objective(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    for weighting, want in ((built(path, temperature=3.5), 3.5), (built(path), 1.0)):
        assert isinstance(weighting, Gradient | Reinforced)
        assert weighting.temperature(0.0) == want

"""The axes of a search: what may be drawn is what Hydra's grammar says."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ensemble_kd.errors import UserError
from ensemble_kd.groups import options
from ensemble_kd.paths import conf_dir
from ensemble_kd.search.space import Axis, read_space

DISCRETE = (
    "weighting=uniform,entropy,confidence",
    "weighting=choice(uniform)",
    "weighting=shuffle(uniform,entropy)",
    "objective.temperature=1,2.5,4",
    "objective.temperature=null,2",
    "strategy.assistants=[cnn_large],[cnn_large,cnn_medium]",
    "student.name='a,b','c d'",
    "epochs=range(1,9)",
    "epochs=range(10,1,-3)",
    "epochs=shuffle(range(0,7,2))",
    "epochs=tag(log,range(1,6))",
    "objective.temperature=range(0,1,0.1)",
    "objective.temperature=float(range(1,4))",
    "+some.key=range(1.5,4)",
)


def draws(axis: Axis, count: int) -> list[Any]:
    """Values that are drawn at random."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask({"drawn": axis.distribution}).params["drawn"] for _ in range(count)]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(level)


@pytest.mark.parametrize("line", DISCRETE)
def test_what_is_drawn_is_what_a_sweep_would_run(line: str) -> None:
    (axis,) = read_space([line]).axes
    (override,) = OverridesParser.create().parse_overrides([line])
    key = override.get_key_element()
    assert {axis.override(drawn) for drawn in draws(axis, 150)} == {
        f"{key}={text}" for text in override.sweep_string_iterator()
    }


def test_choices_stand_in_the_same_order_at_every_start() -> None:
    (axis,) = read_space(["a=shuffle(1,2,3,4,5,6,7,8,9)"]).axes
    assert axis.distribution == CategoricalDistribution([str(number) for number in range(1, 10)])


def test_the_options_of_a_group_are_choices() -> None:
    (axis,) = read_space(["weighting=glob(*,exclude=m*)"]).axes
    known = [name for name in options([conf_dir()])["weighting"] if not name.startswith("m")]
    assert axis.distribution == CategoricalDistribution(known)


@pytest.mark.parametrize(
    ("line", "distribution"),
    [
        ("a=interval(1,8)", FloatDistribution(1.0, 8.0)),
        ("a=interval(-1.5,0)", FloatDistribution(-1.5, 0.0)),
        ("a=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=tag(log,int(interval(1,1000)))", IntDistribution(1, 1000, log=True)),
    ],
)
def test_intervals_have_their_ends_and_their_scale(
    line: str, distribution: BaseDistribution
) -> None:
    (axis,) = read_space([line]).axes
    assert axis.distribution == distribution
    low, high = vars(distribution)["low"], vars(distribution)["high"]
    drawn = draws(axis, 400)
    assert all(low <= value <= high for value in drawn)
    if vars(distribution)["log"]:
        below = sum(value < math.sqrt(low * high) for value in drawn) / len(drawn)
        assert below == pytest.approx(0.5, abs=0.1)
    for value in drawn[:10]:
        (override,) = OverridesParser.create().parse_overrides([axis.override(value)])
        assert override.value() == value


def test_a_trial_is_the_command_line_with_one_value_for_each_axis() -> None:
    space = read_space(["seed=3", "a=interval(1,2)", "~x", "+b=u,v", "c='e f'"])
    assert [axis.key for axis in space.axes] == ["a", "+b"]
    assert space.fixed == ["seed=3", "~x", "c='e f'"]
    assert space.overrides({"a": 1.25, "+b": "v"}) == [
        *("seed=3", "a=1.25", "~x", "+b=v", "c='e f'")
    ]


def test_each_choice_and_both_ends_are_tried_beforehand() -> None:
    space = read_space(
        ["a=int(interval(1,9))", "b=u,v,w", "c=range(4,0,-1)", "d=range(0,1)", "e=1"]
    )
    assert space.probes() == [
        ["a=1", "a=9"],
        ["b=u", "b=v", "b=w"],
        ["c=1", "c=4"],
        ["d=0"],
        ["e=1"],
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a=1", ["expected something to search"]),
        ("seed=0,1,2", ["seed", "luckiest"]),
        ("teacher.seed=range(0,3)", ["teacher.seed", "luckiest"]),
        ("hydra.run.dir=a,b", ["hydra.run.dir", "--folder"]),
        ("hydra/launcher=joblib", ["hydra/launcher"]),
        ("sweep=seeds", ["sweep"]),
        ("a=interval(2,1)", ["lower end first"]),
        ("a=interval(0,inf)", ["finite"]),
        ("a=interval(nan,1)", ["finite"]),
        ("a=tag(log,interval(0,1))", ["above 0", "log"]),
        ("a=tag(log,range(1,9,2))", ["steps of 1", "log"]),
        ("a=tag(log,range(1,3,0.5))", ["steps of 1", "log"]),
        ("a=tag(log,choice(1,2))", ["no tag but log", "interval"]),
        ("a=tag(slow,interval(1,2))", ["no tag but log"]),
        ("a=range(3,1)", ["empty"]),
        ("a=range(1,3,0)", ["empty"]),
        ("weighting=glob(zzz*)", ["no option"]),
        ("a=b=c,d=", ["grammar", "a=b=c,d="]),
        ("a=interval(1)", ["a=interval(1)"]),
    ],
)
def test_what_a_search_cannot_use_is_one_line(line: str, words: list[str]) -> None:
    with pytest.raises(UserError) as refusal:
        read_space([line])
    said = str(refusal.value)
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("second", ["a=1", "a=3,4", "+a=3,4"])
def test_an_axis_is_given_once(second: str) -> None:
    with pytest.raises(UserError, match="a: expected it once, got it twice"):
        read_space(["a=1,2", second])

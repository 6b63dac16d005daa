"""Whatever decides what a module does is in its digest."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ensemble_kd.fingerprint import code_digest, foreign_packages, module_digest
from ensemble_kd.networks import Mlp
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import Cosine, Linear
from ensemble_kd.strategies import Parallel
from ensemble_kd.weightings import Fixed, Uniform


def parallel(
    temperature: float = 2.0, weight: float = 1.0, shares: tuple[float, ...] = ()
) -> nn.Module:
    terms = {"label": Term(Label()), "soft": Term(Soft(temperature), weight)}
    return Parallel(terms, Fixed(list(shares)) if shares else Uniform())


class Holding(nn.Module):
    def __init__(self, held: object) -> None:
        super().__init__()
        self.held = held


class Buffered(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.tensor(value), persistent=False)


def same(make: Callable[[], nn.Module]) -> bool:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = make()
        torch.manual_seed(0)
        second = make()
    return module_digest(first) == module_digest(second) == module_digest(copy.deepcopy(first))


@pytest.mark.parametrize(
    "make",
    [
        parallel,
        lambda: parallel(shares=(1, 2)),
        lambda: Mlp([6], 3, [5]),
        lambda: Term(Label(), 1.0, Cosine()),
        lambda: Holding({"a": [1, (2, None)], "b": torch.relu, "c": nn.ReLU}),
        lambda: Buffered(1.0),
    ],
)
def test_equal_modules_have_equal_digests(make: Callable[[], nn.Module]) -> None:
    assert same(make)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (parallel(), parallel(temperature=8.0)),
        (parallel(), parallel(weight=0.0)),
        (parallel(shares=(1, 2)), parallel(shares=(2, 1))),
        (Term(Label(), 1.0, Linear(0, 1)), Term(Label(), 1.0, Linear(1, 0))),
        (Term(Label(), 1.0, Linear(0, 1)), Term(Label(), 1.0, Cosine())),
        (Holding(torch.relu), Holding(torch.tanh)),
        (Holding([1, 2]), Holding([12])),
        (Buffered(1.0), Buffered(2.0)),
        (nn.Linear(3, 2), nn.Linear(3, 2)),
    ],
)
def test_what_differs_has_another_digest(one: nn.Module, other: nn.Module) -> None:
    assert module_digest(one) != module_digest(other)


def test_what_cannot_be_described_is_never_the_same() -> None:
    module = Holding(lambda value: value)
    assert module_digest(module) != module_digest(module)


def test_a_module_is_the_same_in_training_and_after_it_rests() -> None:
    network = Mlp([6], 3, [5])
    before = module_digest(network.train())
    assert module_digest(network.eval()) == before


def test_the_code_of_a_users_package_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in (("mine_a", "x = 1\n"), ("mine_b", "x = 2\n")):
        (tmp_path / f"{name}.py").write_text(text)
    assert code_digest("mine_a") != code_digest("mine_b")
    before = code_digest("mine_a")
    (tmp_path / "mine_a.py").write_text("x = 3\n")
    code_digest.cache_clear()
    assert code_digest("mine_a") != before
    sys.modules.pop("mine_a", None)


def test_the_packages_of_a_node_are_found_wherever_they_stand() -> None:
    node = {
        "_target_": "ensemble_kd.strategies.Parallel",
        "peers": [{"_target_": "mine.Net", "inner": {"_target_": "theirs.Layer"}}],
        "optimizer": {"_target_": "torch.optim.Adam"},
    }
    assert foreign_packages(node) == {"mine", "theirs"}


def test_partials_are_what_they_call_and_with_what() -> None:
    made = [
        Holding(functools.partial(torch.clamp, min=0.0)),
        Holding(functools.partial(torch.clamp, min=1.0)),
        Holding(functools.partial(torch.relu)),
    ]
    assert len({module_digest(module) for module in made}) == 3
    assert module_digest(made[0]) == module_digest(copy.deepcopy(made[0]))


def test_an_object_that_refers_back_has_a_digest() -> None:
    class_of_its_own = Holding([])
    class_of_its_own.held.append(class_of_its_own)  # type: ignore[attr-defined]
    assert module_digest(class_of_its_own) == module_digest(class_of_its_own)


def test_a_network_that_refers_to_its_own_weights_has_a_digest() -> None:
    network = nn.LSTM(2, 3)
    again = copy.deepcopy(network)
    assert module_digest(again) == module_digest(network)
    with torch.no_grad():
        next(again.parameters()).add_(1.0)
    assert module_digest(again) != module_digest(network)


def test_tied_weights_differ_from_equal_ones() -> None:
    tied = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = tied[0].weight
    tied[1].bias = tied[0].bias
    untied = copy.deepcopy(nn.ModuleList([tied[0]]))
    untied.append(copy.deepcopy(tied[0]))
    assert module_digest(tied) != module_digest(untied)
    assert module_digest(tied) == module_digest(copy.deepcopy(tied))


def test_a_class_of_a_notebook_is_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Holding, "__module__", "__main__")
    assert module_digest(Holding(1)) != module_digest(Holding(1))

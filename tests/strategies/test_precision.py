"""Half precision in the networks of every strategy, and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from ensemble_kd.networks.branched import Branched
from ensemble_kd.networks.gated import Gate
from ensemble_kd.objectives import Label, Term
from ensemble_kd.paths import conf_dir
from ensemble_kd.strategies import KDCL, Parallel
from ensemble_kd.strategies.hearing import heard
from ensemble_kd.strategies.lesson import Lesson
from ensemble_kd.strategies.okddip import Attention
from ensemble_kd.teachers import Ensemble, Frozen, LabelSpace, covered
from ensemble_kd.types import NEVER, Batch, Output, Progress, Turn
from ensemble_kd.weightings import (
    Confidence,
    Entropy,
    Gradient,
    Learned,
    Monitor,
    Reinforced,
    Weighting,
)

STRATEGIES = sorted(
    path.stem
    for path in (conf_dir() / "strategy").glob("*.yaml")
    if path.stem != "self_distillation"  # for texts only: tests/test_mixed_precision.py
)
TEACHERS = ("teacher.members=[cnn_tiny,cnn_tiny]",)
INSTEAD = {"multi_task": ("data=digits_tasks",)}
"""What an option has in place of these teachers."""
SMALL = (
    *("trainer.precision=bf16-mixed", "+trainer.limit_train_batches=2"),
    *("+trainer.limit_val_batches=1", "epochs=1", "teacher.epochs=1", "controls=[]"),
)
HALVES = [torch.bfloat16, torch.float16]
CLASSES, SAMPLES = 5, 6
BATCH = Batch(None, torch.arange(SAMPLES) % CLASSES, torch.arange(SAMPLES))
START = Progress(0, 0, 0.0)
WEIGHTINGS: list[Callable[[], Weighting]] = [
    Confidence,
    Entropy,
    Gradient,
    lambda: Learned(CLASSES),
    Monitor,
    lambda: Reinforced(CLASSES),
]


@pytest.fixture
def computed() -> Iterator[set[torch.dtype]]:
    """The types in which convolutions are computed while something learns."""
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, given: Any, said: Any) -> None:
        if isinstance(module, nn.Conv2d) and torch.is_autocast_enabled("cpu"):
            seen.add(said.dtype)

    hook = register_module_forward_hook(note)
    yield seen
    hook.remove()


@pytest.mark.filterwarnings("ignore:.*limit_val_batches")
@pytest.mark.parametrize("option", STRATEGIES)
def test_every_strategy_trains(
    trained: Callable[..., Any], computed: set[torch.dtype], option: str
) -> None:
    done = trained(f"strategy={option}", *SMALL, *INSTEAD.get(option, TEACHERS))
    assert computed == {torch.bfloat16}
    for network in done.networks.values():
        for parameter in network.parameters():
            assert parameter.dtype == torch.float32
            assert parameter.isfinite().all()
    values = [value for (stage, _), curve in done.curves.items() for value in curve]
    assert values
    assert torch.tensor(values).isfinite().all()


def drawn(seed: int, dtype: torch.dtype, scale: float = 4.0) -> Output:
    generator = torch.Generator().manual_seed(seed)
    return Output((scale * torch.randn(SAMPLES, CLASSES, generator=generator)).to(dtype))


def single(said: Output) -> Output:
    return said._replace(logits=said.logits.float())


def randomised(weighting: Weighting) -> Weighting:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in weighting.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return weighting


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("make", WEIGHTINGS)
def test_weights_know_nothing_of_mixed_precision(
    make: Callable[[], Weighting], dtype: torch.dtype
) -> None:
    lesson = Lesson({"label": Term(Label())}, randomised(make()))
    student, *teachers = (drawn(seed, dtype) for seed in range(4))
    exact = lesson.weights(single(student), tuple(map(single, teachers)), BATCH, START)
    with torch.autocast("cpu", dtype=dtype):
        found = lesson.weights(student, tuple(teachers), BATCH, START)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)


class Said(nn.Module):
    """Always the same logits, with a gradient."""

    def __init__(self, said: Output) -> None:
        super().__init__()
        self.logits = nn.Parameter(said.logits)

    def forward(self, inputs: Any) -> Tensor:
        return self.logits * 1


@pytest.mark.parametrize("dtype", HALVES)
def test_a_weighting_that_learns_afterwards_neither(dtype: torch.dtype) -> None:
    strategy = Parallel({"label": Term(Label())}, randomised(Reinforced(CLASSES, baseline=False)))
    ensemble = Ensemble([Frozen(Said(single(drawn(seed, dtype)))) for seed in (1, 2)])
    student = Said(single(drawn(0, dtype)))

    def last() -> Turn:
        *_, turn = strategy.turns(student, ensemble, BATCH, START)
        return turn

    exact = last()
    with torch.autocast("cpu", dtype=dtype):
        found = last()
    assert torch.equal(found.terms["policy"], exact.terms["policy"])


def test_a_class_that_is_ruled_out_is_not_one_of_which_nothing_is_known() -> None:
    """Float16 would take the one for the other."""
    names = ("a", "b", "c", "d", "e")
    voice = LabelSpace(covered(["a", "b"], names), CLASSES)(
        Output(torch.ones(SAMPLES, 2, dtype=torch.float16))
    )
    (found,) = heard((voice,), drawn(0, torch.float16), BATCH)
    assert found.logits.dtype == torch.float32
    assert (found.logits[BATCH.target < 2, 2:] == NEVER).all()
    assert (found.logits[BATCH.target >= 2, 2:] == -torch.inf).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_errors_are_summed_up_in_single(dtype: torch.dtype) -> None:
    said = {"student": drawn(0, dtype), "peer/1": drawn(1, dtype)}
    half, exact = (KDCL([nn.Linear(2, 2)], {"label": Term(Label())}, Entropy()) for _ in range(2))
    with torch.autocast("cpu", dtype=dtype):
        half.validated(said, BATCH, START)
    exact.validated({name: single(each) for name, each in said.items()}, BATCH, START)
    assert torch.equal(half.errors, exact.errors)


@pytest.mark.parametrize("dtype", HALVES)
def test_attention_does_not_overflow(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    attention = Attention(16)
    features = (100 * torch.randn(3, SAMPLES, 16)).to(dtype)
    exact = attention(features.float())
    with torch.autocast("cpu", dtype=dtype):
        found = attention(features)
    assert torch.equal(found, exact)
    assert found.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_shares_of_a_gate_add_up_in_single(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate = Gate(4, 3)
    outputs = tuple(drawn(seed, dtype) for seed in range(3))
    shared = torch.randn(SAMPLES, 4).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        logits, shares = copy.deepcopy(gate).mix(Branched(outputs, (), shared))
    assert logits.dtype == shares.dtype == torch.float32
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(SAMPLES), rtol=0.0, atol=1e-6)

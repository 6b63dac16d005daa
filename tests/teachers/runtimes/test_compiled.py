"""torch.compile, and what happens where it cannot work."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.teachers.runtimes import Compiled, Unavailable
from ensemble_kd.teachers.runtimes import compiled as module

Freeze = Callable[..., nn.Module]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Stands in for the compiler, and remembers what it was given."""
    given: list[object] = []

    def compile(function: Callable[[Tensor], Tensor], **options: object) -> object:
        given.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(module, "check_compiler", lambda device: None)
    return given


def test_says_what_the_network_says(
    network: nn.Module, inputs: Tensor, calls: list[object]
) -> None:
    before = copy.deepcopy(network)
    answer = Compiled().prepare(network, inputs)
    for batch in (inputs, inputs[:1], torch.cat([inputs] * 2)):
        expected = network(batch)
        assert answer(batch).shape == expected.shape
        torch.testing.assert_close(answer(batch), expected)
    assert len(calls) == 1
    assert torch.equal(copy.deepcopy(answer)(inputs), answer(inputs))
    assert torch.equal(pickle.loads(pickle.dumps(answer))(inputs), answer(inputs))
    assert len(calls) == 3
    for now, then in zip(network.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(now, then)


def test_each_network_has_code_of_its_own(
    cnns: list[nn.Module], inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Callable[[Tensor], Tensor]] = []

    def compile(function: Callable[[Tensor], Tensor], **options: object) -> object:
        given.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(module, "check_compiler", lambda device: None)
    for network in cnns:
        torch.testing.assert_close(Compiled().prepare(network, inputs)(inputs), network(inputs))
    assert len({id(function.__code__) for function in given}) == 3


def test_says_that_there_is_no_compiler(
    cnns: list[nn.Module], inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler was found \(g\+\+ or clang\+\+\)"):
        Compiled().prepare(cnns[0], inputs)
    monkeypatch.setenv("CXX", "missing-compiler -O2")
    with pytest.raises(Unavailable, match=r"was found \(missing-compiler -O2\)"):
        Compiled().prepare(cnns[0], inputs)


def test_says_that_the_headers_are_missing(
    cnns: list[nn.Module], inputs: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(Unavailable, match="the headers of Python"):
        Compiled().prepare(cnns[0], inputs)


def test_a_compiler_that_fails_is_a_reason(
    cnns: list[nn.Module], inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile(function: object, **options: object) -> object:
        raise RuntimeError("g++:\n internal error")

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(module, "check_compiler", lambda device: None)
    with pytest.raises(Unavailable, match=r"^torch.compile failed: g\+\+: internal error$"):
        Compiled().prepare(cnns[0], inputs)


@pytest.mark.slow
def test_the_compiler_itself(freeze: Freeze, inputs: Tensor) -> None:
    network = freeze(nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 5)))
    try:
        module.check_compiler(inputs.device)
    except Unavailable as closed:
        pytest.skip(closed.reason)
    answer = Compiled().prepare(network, inputs)
    for batch in (inputs, inputs[:1], inputs[:4], torch.cat([inputs] * 2)):
        torch.testing.assert_close(answer(batch), network(batch), rtol=1e-5, atol=1e-5)
    assert not answer(inputs).requires_grad
    (torch.ones(5, requires_grad=True) * answer(inputs)).sum().backward()

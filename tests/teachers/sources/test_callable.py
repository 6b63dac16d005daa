"""Teachers that are handed over as objects."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ensemble_kd.fingerprint import module_digest
from ensemble_kd.networks import Mlp
from ensemble_kd.teachers.sources import Called, given_as_object
from ensemble_kd.types import Output, Tokens

Refusal = Callable[[Callable[[], object]], str]


class Model:
    """A model of another library."""

    def predict(self, inputs: Tensor) -> Any:
        return np.stack([inputs[:, 0].numpy(), -inputs[:, 0].numpy()], axis=1)

    def __call__(self, inputs: Tensor) -> Any:
        return SimpleNamespace(logits=torch.from_numpy(self.predict(inputs)))


RETURNS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: torch.stack([x[:, 0], -x[:, 0]], dim=1),
    "double": lambda x: torch.stack([x[:, 0], -x[:, 0]], dim=1).double(),
    "array": Model().predict,
    "output": lambda x: Output(torch.stack([x[:, 0], -x[:, 0]], dim=1)),
    "object": Model(),
    "partial": functools.partial(Model.predict, Model()),
}


@pytest.mark.parametrize("name", RETURNS)
def test_whatever_holds_logits(name: str) -> None:
    inputs = torch.randn(4, 3)
    loaded = given_as_object(RETURNS[name])
    assert isinstance(loaded.network, Called)
    assert not loaded.network.training
    said = loaded.network(inputs).logits
    assert said.dtype == torch.float32
    torch.testing.assert_close(said, torch.stack([inputs[:, 0], -inputs[:, 0]], dim=1))
    assert copy.deepcopy(loaded.network) is loaded.network


def test_no_gradient_leaves_a_function() -> None:
    layer = nn.Linear(3, 2)
    said = given_as_object(lambda x: layer(x)).network(torch.randn(4, 3)).logits
    assert not said.requires_grad


def test_functions_of_texts() -> None:
    ids = torch.arange(6).view(2, 3)
    tokens = Tokens(ids, ids > 0, ids * 0, torch.zeros(2, 1, dtype=torch.uint8))
    said = given_as_object(lambda t: t.ids.float()[:, :2].numpy()).network(tokens)
    assert said.logits.tolist() == [[0, 1], [3, 4]]


def test_a_network_is_copied_and_known_by_its_weights() -> None:
    network = Mlp([3], 2, hidden=[4])
    loaded = given_as_object(network)
    assert loaded.network is not network
    assert loaded.digest == module_digest(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    assert given_as_object(network).digest != loaded.digest


def test_nobody_vouches_for_a_function() -> None:
    def function(x: Tensor) -> Tensor:
        return x

    assert given_as_object(function).digest != given_as_object(function).digest
    function.digest = "one"  # type: ignore[attr-defined]
    known = given_as_object(function).digest
    assert known == given_as_object(function).digest
    function.digest = "two"  # type: ignore[attr-defined]
    assert given_as_object(function).digest != known


def test_what_is_no_teacher(refusal: Refusal) -> None:
    for wrong in ("folder", 3, None):
        said = refusal(lambda wrong=wrong: given_as_object(wrong))  # type: ignore[misc]
        named = type(wrong).__name__
        assert said.endswith(f"expected networks or functions of a batch's inputs, got {named}")
    said = refusal(lambda: given_as_object(lambda x: x.argmax(1)).network(torch.ones(2, 2)))
    assert "expected logits from" in said
    assert "got torch.int64" in said
    said = refusal(lambda: given_as_object(lambda x: None).network(torch.ones(2, 2)))
    assert "<lambda> gives no logits: TypeError: a network must return logits" in said
    said = refusal(lambda: given_as_object(Model()).network(torch.ones(2)))
    assert "Model gives no logits: IndexError: too many indices" in said


def test_answers_lie_where_the_inputs_are() -> None:
    nested = {"name": "text", "parts": [torch.ones(2, 3, device="meta")]}
    said = given_as_object(lambda inputs: torch.ones(2, 3)).network(nested)
    assert said.logits.device.type == "meta"
    assert given_as_object(lambda inputs: torch.ones(2, 3)).network("x").logits.shape == (2, 3)

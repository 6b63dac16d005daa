"""A teacher that exists as an object: a network, or any function of a batch's inputs."""

from __future__ import annotations

import copy
import hashlib
import types
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ensemble_kd.errors import UserError
from ensemble_kd.fingerprint import module_digest
from ensemble_kd.given_files import one_line
from ensemble_kd.teachers.foreign import Foreign
from ensemble_kd.teachers.sources.source import Loaded
from ensemble_kd.types import Output, as_output

Teacher = nn.Module | Callable[[Any], Any]
"""A network, or a function from the inputs of a batch to logits (*, c)."""


def given_as_object(teacher: Teacher) -> Loaded:
    """A teacher that was handed over; a network is copied.

    A network's digest is that of its weights and its code. A function's is random, since nobody can
    say what all it looks at: what it says is never taken for what one said in another run. If it
    has an attribute ``digest``, a text, the user vouches that functions with the same one are the
    same.

    Raises:
        UserError: it is neither a network nor a function.
    """
    if isinstance(teacher, nn.Module):
        return Loaded(copy.deepcopy(teacher), module_digest(teacher))
    if isinstance(teacher, str | bytes) or not callable(teacher):
        raise UserError(
            f"teachers: expected networks or functions of a batch's inputs, got "
            f"{type(teacher).__name__}"
        )
    said = getattr(teacher, "digest", None)
    known = hashlib.sha256(f"called {said}".encode()).hexdigest() if isinstance(said, str) else None
    return Loaded(Called(teacher).eval(), known or uuid.uuid4().hex)


class Called(Foreign):
    """What a function says.

    Args:
        function: from the inputs of a batch, on the device on which they are, to logits (*, c): a
            tensor, an array, an ``Output`` or an object with ``.logits``.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Any) -> Output:
        """Logits (*, c) float32 on the device of the inputs, without gradient.

        Raises:
            UserError: the function fails, or returns something else than logits.
        """
        try:
            with torch.no_grad():
                returned = self.function(inputs)
            if isinstance(returned, np.ndarray):
                returned = torch.from_numpy(returned)
            logits = as_output(returned).logits.detach()
        except UserError:
            raise
        except Exception as failure:  # whatever code of the user's raises
            kind = type(failure).__name__
            raise UserError(
                f"teachers: {_name(self.function)} gives no logits: {kind}: {one_line(failure)}"
            ) from failure
        if not logits.is_floating_point():
            raise UserError(
                f"teachers: expected logits from {_name(self.function)}, got {logits.dtype}"
            )
        return Output(logits.float().to(_device(inputs)))


def _device(inputs: Any) -> torch.device:
    """That of the first tensor among the inputs of a batch."""
    tensors = (leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))
    first = next(tensors, None)
    return torch.device("cpu") if first is None else first.device


def _name(function: Callable[[Any], Any]) -> str:
    named = isinstance(function, types.FunctionType | types.MethodType)
    return function.__qualname__ if named else type(function).__name__

"""A network that torch.compile has translated."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sysconfig
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.teachers.runtimes.runtime import Answer, Unavailable, check_tensor, copied
from ensemble_kd.types import as_output


class Compiled:
    """Runs a network through ``torch.compile``, its weights as constants.

    Translating takes tens of seconds, once for all batch sizes of two and more.
    """

    name = "compiled"
    exact = False
    cold = 20.0

    def prepare(self, network: nn.Module, inputs: Any) -> Answer:
        """Compile a copy of the network, and run it.

        Raises:
            Unavailable: there is no compiler, or it fails.
        """
        batch = check_tensor(inputs)
        check_compiler(batch.device)
        answer = CompiledAnswer(copied(network))
        try:
            answer(batch)
        except Exception as failure:  # compilers fail in many ways
            cause = " ".join(str(failure).split())[:200]
            raise Unavailable(f"torch.compile failed: {cause}") from failure
        return answer


class CompiledAnswer:
    """Logits of a network that is compiled when it is first asked.

    Args:
        network: in eval mode; nobody else changes it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._run: Callable[[Tensor], Tensor] | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """(*, c) float32 logits of a batch."""
        with torch.no_grad(), warnings.catch_warnings():
            # The compiler's remarks on its own insides.
            warnings.simplefilter("ignore")
            if self._run is None:
                self._run = _compile(self.network)
            # Alone, a sample would be compiled for once more: sizes 0 and 1 count as constants.
            batch = inputs if len(inputs) > 1 else torch.cat([inputs, inputs])
            # A copy: what the compiler gives may be memory that it uses again.
            return self._run(batch)[: len(inputs)].to(torch.float32, copy=True)

    # Compiled code is neither copied nor pickled, and compiled again when it is needed.
    def __getstate__(self) -> dict[str, Any]:
        return {"network": self.network, "_run": None}


def _compile(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Tensor) -> Tensor:
        return as_output(network(inputs)).logits

    # The compiler counts how often it met a piece of code, and gives up after some: each network
    # gets code of its own.
    own = types.FunctionType(
        forward.__code__.replace(), globals(), "forward", None, forward.__closure__
    )
    compiled: Callable[[Tensor], Tensor] = torch.compile(
        own, dynamic=True, options={"freezing": True}
    )
    return compiled


def check_compiler(device: torch.device) -> None:
    """See that there is what ``torch.compile`` needs on a machine.

    Args:
        device: where the compiled code is to run.

    Raises:
        Unavailable: something is missing.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise Unavailable("triton, which torch.compile needs, is not installed")
        return
    if platform.system() == "Windows":
        names = [os.environ.get("CXX", "cl")]
    else:
        names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    if not any(shutil.which(name.split()[0]) for name in names):
        raise Unavailable(f"no C++ compiler was found ({' or '.join(names)})")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise Unavailable("the headers of Python, which torch.compile needs, are not installed")

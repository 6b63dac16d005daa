"""Networks that run through torch.compile while they learn."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from ensemble_kd.errors import UserError

BACKEND = "inductor"
"""Of ``torch.compile``; another one serves to test what is around it."""

Function = Callable[..., Any]


class CompiledForward:
    """What runs in place of a network's forward pass, and is no part of the network.

    Only where gradients are recorded: in validation the network runs as it is. For a batch of
    another size it is compiled once more, and then serves all sizes; a batch of one sample is a
    case of its own. Features are caught by the hooks of ``listen``, which are compiled with the
    network, once for each list of taps. Other hooks would not be called, and are refused.

    Args:
        network: the network.
        compiler: makes a faster function of one.
    """

    def __init__(self, network: nn.Module, compiler: Callable[[Function], Function]) -> None:
        self.calls = 0
        self._network = network
        self._parts = list(network.modules())
        self._compiler = compiler
        self._runs: dict[tuple[str, ...], Function] = {}

    def __call__(self, *inputs: Any) -> Any:
        """What the network returns."""
        if not torch.is_grad_enabled():
            return self._network._call_impl(*inputs)
        return self._run((), lambda: self._compiler(_own_code(self._network, None)), *inputs)

    def listen(
        self,
        inputs: Any,
        taps: tuple[str, ...],
        attach: Callable[[dict[str, Any]], AbstractContextManager[Any]],
    ) -> tuple[Any, dict[str, Any]]:
        """What the network returns, and what the hooks of its taps caught.

        Args:
            inputs: a batch of inputs.
            taps: the names of the taps.
            attach: puts hooks on the network that write into a dictionary, until it is left.
        """
        said: tuple[Any, dict[str, Any]] = self._run(taps, lambda: self._listening(attach), inputs)
        return said

    def _listening(
        self, attach: Callable[[dict[str, Any]], AbstractContextManager[Any]]
    ) -> Function:
        caught: dict[str, Any] = {}
        free = [dict(hooks) for hooks in self._hooks()]
        with attach(caught):
            ours = [
                (hooks, key, hook)
                for hooks, before in zip(self._hooks(), free, strict=True)
                for key, hook in hooks.items()
                if key not in before
            ]
        run = self._compiler(_own_code(self._network, caught))

        def listening(*inputs: Any) -> Any:
            # The same hooks under the same keys in every call: compiled code looks them up there.
            for hooks, key, hook in ours:
                hooks[key] = hook
            try:
                return run(*inputs)
            finally:
                caught.clear()
                for hooks, key, _ in ours:
                    del hooks[key]

        return listening

    def _run(self, taps: tuple[str, ...], make: Callable[[], Function], *inputs: Any) -> Any:
        self.calls += 1
        if any(self._hooks()):
            raise UserError(
                f"compile: expected a network that nobody listens to, got {self._name} with hooks, "
                "which compiled code does not call: compile=false"
            )
        with warnings.catch_warnings():
            # The compiler's remarks on its own insides.
            warnings.simplefilter("ignore")
            try:
                if taps not in self._runs:
                    self._runs[taps] = make()
                return self._runs[taps](*inputs)
            except RuntimeError as failure:
                if not type(failure).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                reason = " ".join(str(failure).split())[:300]
                raise UserError(
                    f"compile: torch.compile failed on {self._name}: {reason}: compile=false"
                ) from failure

    def _hooks(self) -> Iterator[dict[Any, Any]]:
        for part in self._parts:
            yield part._forward_pre_hooks
            yield part._forward_hooks

    @property
    def _name(self) -> str:
        return type(self._network).__name__


def compiled_forward(network: nn.Module) -> CompiledForward | None:
    """What runs in place of a network's forward pass, if anything does."""
    found = network.__dict__.get("_compiled_call_impl")
    return found if isinstance(found, CompiledForward) else None


@contextmanager
def compiling(
    networks: Iterable[nn.Module], compiler: Callable[[Function], Function] | None = None
) -> Iterator[list[CompiledForward]]:
    """Networks that run through ``torch.compile``, as long as this lasts.

    Their weights, names and modules stay as they are; copies of them are ordinary networks.

    Args:
        networks: the networks.
        compiler: makes a faster function of one; ``torch.compile`` if not given.
    """
    compiled = [CompiledForward(network, compiler or _compile) for network in networks]
    try:
        for each in compiled:
            # Where nn.Module.compile keeps its own, which is neither copied nor pickled.
            each._network._compiled_call_impl = each
        yield compiled
    finally:
        for each in compiled:
            each._network.__dict__.pop("_compiled_call_impl", None)


def _compile(function: Function) -> Function:
    compiled: Function = torch.compile(function, backend=BACKEND)
    return compiled


def _own_code(network: nn.Module, caught: dict[str, Any] | None) -> Function:
    """The forward pass of a network, with what was caught on the way if anything is."""

    def plain(*inputs: Any) -> Any:
        return network._call_impl(*inputs)

    def listening(*inputs: Any) -> Any:
        said = network._call_impl(*inputs)
        return said, dict(caught or {})

    forward = plain if caught is None else listening
    # The compiler counts how often it met a piece of code, and gives up after some: each network
    # gets code of its own.
    return types.FunctionType(
        forward.__code__.replace(), globals(), forward.__name__, None, forward.__closure__
    )

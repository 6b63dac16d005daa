"""Cutting a network in two at a named module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.types import as_output


class Halves(NamedTuple):
    """The two parts of a network; they share its modules, nothing is copied.

    Attributes:
        trunk: all that runs before the cut.
        head: the module at the cut and all that runs after it.
    """

    trunk: nn.Sequential
    head: nn.Sequential


class _Level(NamedTuple):
    """One module on the way to a cut.

    Attributes:
        module: the module.
        at: name of the child at which, or inside which, it is cut.
        before: names of the children that run before that one.
        after: names of those that run after it.
    """

    module: nn.Module
    at: str
    before: list[str]
    after: list[str]


def cut(network: nn.Module, at: str) -> Halves:
    """Cut a network whose modules run one after the other, in the order in which they stand.

    The networks of this project are built like that at their top level and inside their
    ``nn.Sequential`` stages. ``check_cut`` tells whether it holds for another network.

    Args:
        network: the network.
        at: path of the first module of the head, such as ``stages.2`` or ``classifier``.

    Raises:
        UserError: no such module, or the cut would leave the trunk empty, or it lies inside a
            module that is no ``nn.Sequential``.
    """
    levels = _levels(network, at)
    before = [level.module.get_submodule(name) for level in levels for name in level.before]
    after = [level.module.get_submodule(name) for level in levels[::-1] for name in level.after]
    if not before:
        raise UserError(f"split: nothing runs before {at!r}, so there is no trunk to share")
    return Halves(nn.Sequential(*before), nn.Sequential(network.get_submodule(at), *after))


def drop_trunk(network: nn.Module, at: str) -> None:
    """Put ``nn.Identity`` in place of every module that runs before a cut.

    What is left is the head: its modules keep their names, the network its class and its
    attributes, and it can be cut there again.

    Args:
        network: the network; it is changed.
        at: where it is cut.

    Raises:
        UserError: as ``cut`` does.
    """
    cut(network, at)
    for level in _levels(network, at):
        for name in level.before:
            if not isinstance(level.module.get_submodule(name), nn.Identity):
                setattr(level.module, name, nn.Identity())


def check_cut(network: nn.Module, at: str, inputs: Any) -> None:
    """Hold the two halves, run one after the other, against the whole network.

    Args:
        network: the network; it is run in eval mode and left as it was.
        at: where it is cut.
        inputs: a batch of inputs.

    Raises:
        UserError: they do not compute the same, so the network does not run in the order of its
            modules; or the head writes into what the trunk gave it, so no second head could be
            given the same.
    """
    halves = cut(network, at)
    with torch.no_grad(), resting(network):
        whole = as_output(network(inputs)).logits
        try:
            shared = halves.trunk(inputs)
            kept = shared.clone()
            apart = as_output(halves.head(shared)).logits
            same = torch.allclose(whole, apart, rtol=1e-4, atol=1e-5, equal_nan=True)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            # The halves fail where the whole ran: something happens between its modules.
            same = False
    if not same:
        raise UserError(
            f"split: {type(network).__name__} does not run its modules one after the other, so it "
            f"cannot be cut at {at!r}"
        )
    if not torch.equal(kept, shared):
        raise UserError(
            f"split: the part of {type(network).__name__} from {at!r} on changes its input in "
            "place, so several such parts cannot share a trunk: cut elsewhere, or set inplace=False"
        )


@contextmanager
def resting(network: nn.Module) -> Iterator[None]:
    """A network in eval mode; afterwards each of its modules is in the mode in which it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _levels(network: nn.Module, at: str) -> list[_Level]:
    """The modules on the way to a cut, outermost first."""
    levels: list[_Level] = []
    here, parts = network, at.split(".")
    for depth, part in enumerate(parts):
        # named_children() would leave out the second use of a module that stands in two places.
        names = [name for name, child in here._modules.items() if child is not None]
        path = ".".join(parts[: depth + 1])
        if part not in names:
            known = [name for name, _ in network.named_modules() if name]
            raise UserError(
                f"split: {type(network).__name__} has no module {path!r}{nearest(at, known)}"
            )
        if depth > 0 and not isinstance(here, nn.Sequential):
            inside = ".".join(parts[:depth])
            raise UserError(
                f"split: cannot cut inside {inside!r}, which is a {type(here).__name__} and no "
                f"sequence: split={inside} cuts before it"
            )
        place = names.index(part)
        levels.append(_Level(here, part, names[:place], names[place + 1 :]))
        here = here.get_submodule(part)
    return levels

"""A stretch of a network that learns while all before and behind it stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn

from ensemble_kd.errors import nearest
from ensemble_kd.networks.cut import resting


def freeze_outside(network: nn.Module, after: str | None, up_to: str | None) -> tuple[str, ...]:
    """Let nothing learn but the parameters behind one module, up to and with those of another.

    What is behind what is told by the order in which modules are registered; in the networks of
    this project and in most others that is the order in which they run.

    Args:
        network: is changed: ``requires_grad`` becomes false outside.
        after: path of the last module that does not learn; None to begin at the beginning.
        up_to: path of the last module that learns; None to go to the end.

    Returns:
        Paths of the modules that rest, without those inside them; see ``at_rest``.

    Raises:
        ValueError: there is no such module, or nothing learns between them.
    """
    paths = [path for path, _ in network.named_modules()]
    places = {path: place for place, path in enumerate(paths)}
    start = -1 if after is None else _end(paths, after)
    stop = len(paths) if up_to is None else _end(paths, up_to)
    learning = 0
    for name, parameter in network.named_parameters():
        if start < places[name.rpartition(".")[0]] <= stop:
            learning += parameter.requires_grad
        else:
            parameter.requires_grad_(False)
    if not learning:
        raise ValueError(
            f"nothing learns between {after or 'the beginning'} and {up_to or 'the end'}: layers "
            "must be named in the order in which they run"
        )
    inside = paths[start + 1 : stop + 1]
    rest = [path for path in paths if not any(_holds(path, each) for each in inside)]
    return tuple(path for path in rest if path.rpartition(".")[0] not in rest)


@contextmanager
def at_rest(network: nn.Module, paths: Sequence[str]) -> Iterator[None]:
    """Some modules of a network in eval mode, so that dropout and statistics rest as well."""
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(resting(network.get_submodule(path)))
        yield


def _holds(path: str, other: str) -> bool:
    """Whether a module is another one or has it inside."""
    return not path or f"{other}.".startswith(f"{path}.")


def _end(paths: list[str], path: str) -> int:
    """The place of the last module inside a module, itself included."""
    inside = [place for place, each in enumerate(paths) if _holds(path, each)]
    if not inside:
        raise ValueError(f"the network has no module {path!r}{nearest(path, paths)}")
    return inside[-1]

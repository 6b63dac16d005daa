"""A stretch of a network that learns while all before and behind it stays as it is."""

from __future__ import annotations

from torch import nn

from ensemble_kd.errors import nearest


def freeze_outside(network: nn.Module, after: str | None, up_to: str | None) -> None:
    """Let nothing learn but the parameters behind one module, up to and with those of another.

    What is behind what is told by the order in which modules are registered; in the networks of
    this project and in most others that is the order in which they run.

    Args:
        network: is changed: ``requires_grad`` becomes false outside.
        after: path of the last module that does not learn; None to begin at the beginning.
        up_to: path of the last module that learns; None to go to the end.

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


def _end(paths: list[str], path: str) -> int:
    """The place of the last module inside a module, itself included."""
    inside = [place for place, each in enumerate(paths) if f"{each}.".startswith(f"{path}.")]
    if not inside:
        raise ValueError(f"the network has no module {path!r}{nearest(path, paths)}")
    return inside[-1]

"""A deep network's blocks as the initial weights of a shallower one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


class Blocks(NamedTuple):
    """The numbered blocks of a network.

    Attributes:
        start: how the names of their weights start: the path of the list with a point behind.
        number: how many there are.
    """

    start: str
    number: int


def from_layers(
    student: nn.Module,
    teacher: nn.Module | State,
    layers: Sequence[int] | None = None,
    path: str | None = None,
) -> tuple[str, ...]:
    """Give the student blocks of a teacher, and all else of the teacher that has the same shape.

    Block j of the student takes over the weights and buffers of block ``layers[j]``. What stands
    outside the blocks (embeddings, classifier) is taken over where the teacher has it under the
    same name and in the same shape; in front of the blocks' path, names may begin differently. The
    blocks are the largest list of equal parts, numbered from 0 on.

    Source: with layers 0, 2, 4, 7, 9, 11 of 12 DistilBERT (Sanh et al., arXiv 1910.01108, and
    huggingface's research projects @fccd0cd); with the first k PKD (Sun et al., arXiv 1908.09355,
    section 4.2); with all layers of a small network that was trained before, well-read students
    (Turc et al., arXiv 1908.08962).

    Args:
        student: is changed in place.
        teacher: a network, or its state by name.
        layers: numbers of the teacher's blocks, as many as the student has; all of them, in their
            order, if not given.
        path: how the path of the blocks ends, in both networks; found if not given.

    Returns:
        The names of the student's weights and buffers that stay as they are.

    Raises:
        ValueError: a network has no such blocks, or the numbers or sizes do not fit.
    """
    own = dict(student.state_dict())
    other = teacher.state_dict() if isinstance(teacher, nn.Module) else teacher
    mine, theirs = blocks_of(own, "student", path), blocks_of(other, "teacher", path)
    chosen = _checked(layers, mine, theirs)
    filled = {}
    for name, value in own.items():
        if name.startswith(mine.start):
            filled[name] = _of_block(name, value, mine, theirs, chosen, other)
        else:
            found = _outside(name, mine, theirs, other)
            if found is not None and found.shape == value.shape:
                filled[name] = found
    with torch.no_grad():
        for name, value in filled.items():
            own[name].copy_(value)
    return tuple(name for name in own if name not in filled)


def blocks_of(state: State, whose: str, path: str | None = None) -> Blocks:
    """The largest list of equal parts in a network, numbered from 0 on.

    Args:
        state: weights and buffers by name.
        whose: for the message.
        path: how the path of the list ends; any if not given.

    Raises:
        ValueError: there is none.
    """
    lists: dict[str, dict[int, set[str]]] = {}
    sizes: dict[str, int] = {}
    for name, value in state.items():
        for number in re.finditer(r"(?:^|(?<=\.))\d+(?=\.)", name):
            where = name[: number.start()]
            parts = lists.setdefault(where, {})
            parts.setdefault(int(number[0]), set()).add(name[number.end() :])
            sizes[where] = sizes.get(where, 0) + value.numel()
    alike = {
        where: len(parts)
        for where, parts in lists.items()
        if set(parts) == set(range(len(parts)))
        and all(names == parts[0] for names in parts.values())
        and (path is None or f".{where}".endswith(f".{path}."))
    }
    if not alike:
        named = "" if path is None else f" at a path that ends with {path!r}"
        raise ValueError(f"layers: the {whose} has no list of equal blocks{named}")
    largest = max(alike, key=lambda where: sizes[where])
    return Blocks(largest, alike[largest])


def _checked(layers: Sequence[int] | None, mine: Blocks, theirs: Blocks) -> tuple[int, ...]:
    if layers is None and mine.number != theirs.number:
        raise ValueError(
            f"layers: expected {mine.number} numbers of the teacher's {theirs.number} "
            "layers, got none: all of them do only for a student of the same depth"
        )
    chosen = tuple(range(theirs.number)) if layers is None else tuple(layers)
    if len(chosen) != mine.number:
        raise ValueError(
            f"layers: expected {mine.number} numbers, one for each layer of the student, "
            f"got {list(chosen)}"
        )
    if not all(0 <= number < theirs.number for number in chosen):
        raise ValueError(
            f"layers: expected numbers from 0 to {theirs.number - 1}, the layers of the "
            f"teacher, got {list(chosen)}"
        )
    return chosen


def _of_block(
    name: str, value: Tensor, mine: Blocks, theirs: Blocks, chosen: Sequence[int], other: State
) -> Tensor:
    number, _, part = name.removeprefix(mine.start).partition(".")
    source = f"{theirs.start}{chosen[int(number)]}.{part}"
    if source not in other:
        raise ValueError(
            f"layers: the layers of the teacher hold no {part!r} as those of the student "
            f"do ({source} is missing)"
        )
    found = other[source]
    if found.shape != value.shape:
        raise ValueError(
            f"layers: expected layers of one size, got {part} {tuple(value.shape)} in the "
            f"student and {tuple(found.shape)} in the teacher"
        )
    return found


def _outside(name: str, mine: Blocks, theirs: Blocks, other: State) -> Tensor | None:
    """What the teacher has under the same name, but for the beginnings of the blocks' paths."""
    own, beginning = _apart(mine.start, theirs.start)
    bare = name.removeprefix(own)
    for known in (name, f"{beginning}{bare}", bare):
        if known in other:
            return other[known]
    return None


def _apart(start: str, other: str) -> tuple[str, str]:
    """What stands in two paths before the parts with which both end."""
    parts, others = start.split("."), other.split(".")
    while parts and others and parts[-1] == others[-1]:
        parts.pop()
        others.pop()
    return "".join(f"{part}." for part in parts), "".join(f"{part}." for part in others)

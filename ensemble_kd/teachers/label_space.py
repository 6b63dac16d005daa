"""Teachers whose classes are not those of the student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.teachers.foreign import Numbered
from ensemble_kd.types import Output, as_output

Class = str | int
Classes = Sequence[Class | Sequence[Class] | None]
"""For each output of a teacher: a class of the student, several that it covers, or none."""

Covered = tuple[tuple[int, ...], ...]
"""For each output of a teacher, the numbers of the student's classes that it covers."""


def covered(classes: Classes, names: Sequence[str]) -> Covered:
    """What a teacher's outputs mean in the classes of the student.

    Args:
        classes: for each output of the teacher the name of the class, the names of the classes that
            it covers together (a coarser hierarchy), or None for a class that the student has not.
        names: of the student's classes, in their order.

    Raises:
        ValueError: a name is none of the student's, stands twice, or is carried by two of the
            student's classes; or fewer than two outputs mean anything to the student.
    """
    taken: set[str] = set()
    found = []
    for entry in classes:
        if not isinstance(entry, str | int | Sequence | None):
            raise ValueError(f"classes must hold names, lists of names or null, got {entry!r}")
        several = [] if entry is None else [entry] if isinstance(entry, str | int) else [*entry]
        if entry is not None and not several:
            raise ValueError("classes must not hold an empty list; null is a class of nobody")
        for name in map(str, several):
            if names.count(name) != 1:
                known = "stands twice among" if name in names else "is none of"
                raise ValueError(
                    f"classes must be those of the data, got {name!r}, which {known} "
                    f"{', '.join(names[:20])}{' ...' if len(names) > 20 else ''}: write null for "
                    "a class that the student has not"
                )
            if name in taken:
                raise ValueError(f"classes must name each class once, got {name!r} twice")
            taken.add(name)
        found.append(tuple(names.index(str(name)) for name in several))
    if sum(bool(entry) for entry in found) < 2:
        raise ValueError(f"classes must name at least two classes of the data, got {list(classes)}")
    return tuple(found)


class LabelSpace(nn.Module):
    """Puts a teacher's logits into the classes of the student.

    A class of the student that the teacher does not know gets the logit -inf: the teacher speaks
    of the others, given that it is one of them. Likewise, an output that covers no class of the
    student is left out. An output that covers several of them shares its probability out equally,
    for want of anything better; whoever knows the student can do better, see ``refined``.

    Args:
        entries: for each output of the teacher, the classes of the student that it covers.
        classes: number of the student's classes.
    """

    rows: Tensor
    log_sizes: Tensor

    def __init__(self, entries: Covered, classes: int) -> None:
        super().__init__()
        self.entries = entries
        self.classes = classes
        rows = torch.full((classes,), -1)
        sizes = torch.ones(classes)
        for output, entry in enumerate(entries):
            rows[list(entry)] = output
            sizes[list(entry)] = len(entry)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("log_sizes", sizes.log(), persistent=False)
        # A permutation, with or without classes of nobody, is like any other teacher.
        self.whole = bool((rows >= 0).all() and (sizes == 1).all())

    def forward(self, said: Output) -> Output:
        """Logits (*, c) in the student's classes, from logits with one for each entry.

        Raises:
            ValueError: the teacher has another number of outputs.
        """
        if said.logits.shape[-1] != len(self.entries):
            raise ValueError(
                f"classes must have an entry for each of the teacher's {said.logits.shape[-1]} "
                f"outputs, got {len(self.entries)}"
            )
        known = said.logits[..., self.rows.clamp(min=0)] - self.log_sizes.to(said.logits)
        logits = known.masked_fill(self.rows < 0, -math.inf)
        groups = None if self.whole else self.rows.expand(logits.shape)
        return Output(logits, said.features, groups)

    def labels(self, target: Tensor) -> Tensor:
        """(*,) int64, the teacher's output for each class of the student, -1 where it has none."""
        return self.rows.to(target.device)[target]


class Translated(nn.Module):
    """A teacher that answers in the classes of the student.

    Args:
        network: the teacher itself.
        space: what its outputs mean.
    """

    network: nn.Module
    space: LabelSpace

    def __init__(self, network: nn.Module, space: LabelSpace) -> None:
        super().__init__()
        self.network = network
        self.space = space

    def forward(self, inputs: Any) -> Output:
        """Logits (*, c) in the student's classes."""
        said: Output = self.space(as_output(self.network(inputs)))
        return said


class TranslatedNumbered(Numbered):
    """The same of a teacher that answers by the numbers of samples.

    Args:
        network: the teacher itself.
        space: what its outputs mean.
    """

    network: Numbered
    space: LabelSpace

    def __init__(self, network: Numbered, space: LabelSpace) -> None:
        super().__init__()
        self.network = network
        self.space = space

    def of(self, index: Tensor) -> Output:
        """Logits (b, c) in the student's classes."""
        said: Output = self.space(self.network.of(index))
        return said


def translated(network: nn.Module, entries: Covered | None, classes: int) -> nn.Module:
    """A teacher in the classes of the student: itself where ``entries`` is None."""
    if entries is None:
        return network
    space = LabelSpace(entries, classes)
    if isinstance(network, Numbered):
        return TranslatedNumbered(network, space)
    return Translated(network, space)


def refined(voice: Output, learner: Output) -> Output:
    """A coarse teacher's opinion, shared out within each of its classes as the learner does it.

    With the learner's probabilities q, a class c of the group g gets P(g) q(c) / q(g): held against
    the learner this says nothing of the classes inside a group, and is satisfied exactly when the
    learner's q(g) is P(g). The learner's part receives no gradient.

    Args:
        voice: what a teacher says in the learner's classes, with ``groups`` where it is coarse.
        learner: logits (*, c).

    Returns:
        The output with other logits; the same one where no group has two classes.
    """
    if voice.groups is None:
        return voice
    groups = voice.groups.clamp(min=0)
    # All classes that nobody knows share the first row; their logits stay -inf.
    logits = torch.where(voice.groups >= 0, learner.logits.detach().to(voice.logits), -math.inf)
    largest = torch.full_like(logits, -math.inf).scatter_reduce(-1, groups, logits, "amax")
    shifted = logits - largest.gather(-1, groups)
    total = torch.zeros_like(logits).scatter_add(-1, groups, shifted.exp())
    sizes = torch.zeros_like(logits).scatter_add(-1, groups, (voice.groups >= 0).to(logits))
    share = shifted - total.gather(-1, groups).log()
    known = voice.logits + sizes.gather(-1, groups).log() + share
    return voice._replace(logits=torch.where(voice.groups >= 0, known, -math.inf))

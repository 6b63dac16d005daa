"""Teachers whose answers are given to other samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kd.cache import Places
from ensemble_kd.data.counter import Words, absorb, words
from ensemble_kd.errors import UserError
from ensemble_kd.functional import log_mean_probabilities, log_probabilities, spread
from ensemble_kd.teachers.cached import Remembered
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.teachers.frozen import Frozen
from ensemble_kd.teachers.memory import Memory
from ensemble_kd.types import Batch, Output, Progress, labelled

Numbers = npt.NDArray[np.int64]


class Shuffled(Ensemble):
    """Each sample gets what the teachers say of another training sample of its class.

    The class of a sample is its label or, without one, the class that the teachers rank first by
    the mean of their probabilities. In one pass over the training data, before training, all
    answers are collected, features included, from the samples as that pass augments them: they stay
    in memory, n (c + features) numbers for each teacher. In every epoch the samples of each class
    are put into a circle, in an order drawn anew, and each gets the answers of the next one. So
    every answer is given once in an epoch, all teachers speak of the same other sample, nobody gets
    the own answer who is not alone in his class, and what is given depends on the seed, the epoch
    and the number of the sample only. A sample that the first pass left out, as loaders that drop
    the last batch do, gets an answer of its class as well.

    This keeps what teachers know of classes, and how their answers are distributed within each, and
    takes away all that they know of the sample. Objectives that study their teachers before
    training see them as they are. Before ``study`` the teachers answer live.

    Args:
        teachers: the frozen networks, in order.
        snapshots: files of their checkpoints, which are not needed.
        seed: of the orders.
    """

    def __init__(
        self, teachers: Sequence[Frozen], snapshots: Sequence[Sequence[Path]], seed: int
    ) -> None:
        super().__init__(teachers)
        self.seed = seed
        self._collected: _Collected | None = None
        self._circles: _Circles | None = None

    @classmethod
    def check(cls, batch: Batch) -> None:
        """See that each sample is of one class.

        Raises:
            ValueError: each of its places is of a class of its own.
        """
        if batch.target.ndim != 1:
            raise ValueError(
                "teachers are shuffled among the samples of a class, and here the tokens have "
                "classes and not the samples: leave out shuffled_teacher, or what asks for this"
            )

    def study(self, batches: Callable[[], Iterator[Batch]]) -> None:
        """Collect what the teachers say of all samples of one pass."""
        numbers: list[Tensor] = []
        classes: list[Tensor] = []
        said: list[tuple[Output, ...]] = []
        for batch in batches():
            own = self.own(batch)
            numbers.append(batch.index.cpu())
            classes.append(self._classes(batch, own).cpu())
            said.append(tuple(map(_on_cpu, own)))
        # Where labelled samples are few, a pass serves them several times.
        number, first = np.unique(torch.cat(numbers).numpy(), return_index=True)
        rows, places = torch.from_numpy(first), Places(torch.from_numpy(number), views=1)
        of_teachers = zip(*said, strict=True)
        self._collected = _Collected(
            number,
            torch.cat(classes)[rows].numpy(),
            places,
            tuple(_remembered(own, rows, places) for own in of_teachers),
        )
        self._circles = None

    def forward(self, batch: Batch, progress: Progress) -> tuple[Output, ...]:
        """What each teacher says of another sample of each one's class: m outputs, no gradient.

        Raises:
            UserError: a number stands for samples of several classes, or the samples of a class
                were all left out when answers were collected.
        """
        if self._collected is None:
            return super().forward(batch, progress)
        others = torch.from_numpy(self._others(batch, self._collected, progress.epoch))
        others = others.to(batch.index.device)
        view = torch.zeros_like(others)
        return tuple(
            teacher.translated(remembered.read(others, view))
            for teacher, remembered in zip(self.teachers, self._collected.said, strict=True)
        )

    def _others(self, batch: Batch, known: _Collected, epoch: int) -> Numbers:
        """The numbers (b,) of the samples whose answers those of a batch get."""
        places = known.places.of(batch.index, torch.zeros_like(batch.index))
        met = places >= 0
        places = np.where(met, places, 0)
        _check_classes(batch, known.classes[places], met)
        if self._circles is None or self._circles.epoch != epoch:
            self._circles = _drawn(self.seed, epoch, known)
        others = known.numbers[self._circles.following[places]]
        if not met.all():
            classes = self._classes(batch, self.own(batch)).cpu().numpy()
            for row in np.flatnonzero(~met):
                place = self._circles.after(int(batch.index[row]), int(classes[row]))
                others[row] = known.numbers[place]
        return others

    def _classes(self, batch: Batch, own: Sequence[Output]) -> Tensor:
        """The class of each sample, (b,) int64, from what the networks themselves say."""
        known = labelled(batch)
        if bool(known.all()):
            return batch.target
        voices = [
            teacher.translated(each) for teacher, each in zip(self.teachers, own, strict=True)
        ]
        log_p = torch.stack([log_probabilities(voice.logits) for voice in voices])
        equal = spread(torch.full((len(voices),), 1 / len(voices)), log_p[0])
        return torch.where(known, batch.target, log_mean_probabilities(log_p, equal).argmax(dim=-1))


class _Collected(NamedTuple):
    """What the pass before training found.

    Attributes:
        numbers: (n,) of the samples, ascending.
        classes: (n,) their classes.
        places: where they lie.
        said: what each teacher says of them, in its own classes.
    """

    numbers: Numbers
    classes: Numbers
    places: Places
    said: tuple[Remembered, ...]


class _Circles(NamedTuple):
    """The circles of one epoch: the samples of each class in an order of their own.

    Attributes:
        epoch: which.
        state: from which the keys of that epoch are made.
        order: (n,) places of the samples, by class and then by key.
        classes: (n,) in that order.
        keys: (n,) in that order.
        following: (n,) for each place the one of the next sample in its circle.
    """

    epoch: int
    state: Words
    order: Numbers
    classes: Numbers
    keys: Words
    following: Numbers

    def after(self, number: int, of_class: int) -> int:
        """The place of the sample behind one that is in no circle.

        Raises:
            UserError: there is no circle for its class.
        """
        start, stop = np.searchsorted(self.classes, (of_class, of_class + 1))
        if start == stop:
            raise UserError(
                f"shuffled teachers: expected samples of class {of_class} in the first pass over "
                "the training data, got none, and some later: have the loader drop no samples"
            )
        key = absorb(self.state, words(number))[0]
        behind = int(np.searchsorted(self.keys[start:stop], key, side="right"))
        return int(self.order[start + behind % (stop - start)])


def _drawn(seed: int, epoch: int, known: _Collected) -> _Circles:
    """The circles of an epoch."""
    state = absorb(words(seed), words(epoch))
    keys = absorb(state, known.numbers.astype(np.uint64))
    order = np.lexsort((keys, known.classes))
    classes = known.classes[order]
    _, starts, sizes = np.unique(classes, return_index=True, return_counts=True)
    begin, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
    following = np.empty_like(order)
    following[order] = order[begin + (np.arange(len(order)) - begin + 1) % size]
    return _Circles(epoch, state, order, classes, keys[order], following)


def _check_classes(batch: Batch, classes: Numbers, met: npt.NDArray[np.bool_]) -> None:
    """See that the labels of a batch are those that its numbers had before."""
    target, known = batch.target.cpu().numpy(), labelled(batch).cpu().numpy()
    unlike = np.flatnonzero(known & met & (target != classes))
    if len(unlike):
        row = unlike[0]
        raise UserError(
            "shuffled teachers: expected the same sample under a number in every epoch, got sample "
            f"{int(batch.index[row])} of class {classes[row]} and later of class {target[row]}: "
            "have the batches bring an index of their own"
        )


def _remembered(said: Sequence[Output], rows: Tensor, places: Places) -> Remembered:
    """What one teacher said batch by batch, by place."""

    def joined(parts: Sequence[Tensor]) -> Memory:
        return Memory(places, torch.cat(list(parts))[rows].unsqueeze(1))

    features = {tap: joined([each.features[tap] for each in said]) for tap in said[0].features}
    return Remembered(joined([each.logits for each in said]), features)


def _on_cpu(said: Output) -> Output:
    return Output(said.logits.cpu(), {tap: part.cpu() for tap, part in said.features.items()})

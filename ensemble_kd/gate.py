"""A look at the teachers before anything is trained: does each of them know something?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.predict import networks_of, resting_on
from ensemble_kd.teachers import asked
from ensemble_kd.types import Batch, labelled

LOOKED_AT = 512
"""Labels on which a teacher is judged."""

TOO_FEW = 30
"""Labels with which nothing is said."""

BEYOND_CHANCE = 2.33
"""Standard deviations above what chance gives that a teacher must reach: one in a hundred."""


def check_teachers(teachers: Mapping[str, nn.Module], batches: Iterable[Batch]) -> None:
    """Refuse a teacher that is no better than chance: its preprocessing or classes are wrong.

    Chance is what a teacher with the same predictions would get right if they were dealt out at
    random (as in Cohen's kappa), so a teacher that always says the most frequent class is no
    better. Samples whose class a teacher does not know are not counted.

    Args:
        teachers: by name, in the classes of the data.
        batches: of the validation split.

    Raises:
        UserError: one is at chance.
    """
    some = _some(batches)
    for name, network in teachers.items():
        with resting_on(networks_of(network), "cpu"), torch.inference_mode():
            said = [_said(network, batch) for batch in some]
        own, predicted = (torch.cat(parts) for parts in zip(*said, strict=True))
        if len(own) < TOO_FEW or len(own.unique()) < 2:
            continue  # who is right about a single class need not know anything
        right = float((own == predicted).double().mean())
        chance = _by_chance(own, predicted)
        deviation = math.sqrt(chance * (1 - chance) / len(own))
        if right <= chance + BEYOND_CHANCE * deviation:
            raise UserError(
                f"{name}: no better than chance on {len(own)} validation labels: it gets "
                f"{right:.1%} right, by chance {chance:.1%}: look at its preprocessing and the "
                "order of its classes; teacher.gate=false goes on all the same"
            )


def _some(batches: Iterable[Batch]) -> list[Batch]:
    """The first batches, as many as are needed; of sorted ones, until a second class comes."""
    taken: list[Batch] = []
    labels, classes = 0, set[int]()
    for batch in batches:
        taken.append(batch)
        known = batch.target[labelled(batch)]
        labels += len(known)
        classes |= set(known.unique().tolist())
        if labels >= LOOKED_AT and len(classes) > 1:
            break
    return taken


def _said(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """(n,) true and predicted outputs of the labelled samples whose class a teacher knows."""
    said = asked(network, batch)
    known = labelled(batch)
    target, predicted = batch.target[known], said.logits[known].argmax(-1)
    if said.groups is not None:
        groups = said.groups[known]
        target = groups.gather(-1, target[:, None])[:, 0]
        predicted = groups.gather(-1, predicted[:, None])[:, 0]
    counted = target >= 0
    return target[counted], predicted[counted]


def _by_chance(own: Tensor, predicted: Tensor) -> float:
    """Share that would be right if the same predictions were dealt out at random."""
    size = 1 + int(torch.maximum(own.max(), predicted.max()))
    shares = [torch.bincount(each, minlength=size) / len(each) for each in (own, predicted)]
    return float((shares[0].double() * shares[1].double()).sum())

"""What a learner hears of voices that do not know all of its classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kd.functional import wide
from ensemble_kd.teachers.label_space import refined
from ensemble_kd.types import NEVER, Batch, Output, labelled


def heard(voices: tuple[Output, ...], learner: Output, batch: Batch) -> tuple[Output, ...]:
    """Voices as the learner hears them, with logits for each of its classes, in float32 or wider.

    A coarse voice is refined, see there. Of a labelled sample whose label a voice knows, the
    classes that it does not know are ruled out (``NEVER``): it is one of the others. Of any other
    sample the voice says nothing of them (-inf).

    Args:
        voices: m outputs.
        learner: logits (*, c).
        batch: the batch.
    """
    return tuple(_one(voice, learner, batch) for voice in voices)


def of_those_who_know(weights: Tensor, voices: tuple[Output, ...], batch: Batch) -> Tensor:
    """Weights without those of voices that do not know the label of a sample.

    Args:
        weights: (m, *), >= 0.
        voices: m outputs.
        batch: the batch; a sample without a label leaves the weights as they are.

    Returns:
        (m, *) with the same sum for each sample: the others share it as they did before, or
        equally where none of them had any. Zero where nobody knows the label.
    """
    if all(voice.groups is None for voice in voices):
        return weights
    known = labelled(batch)
    knowing = torch.stack([_knows(voice, batch) for voice in voices]) | ~known
    kept = torch.where(knowing, weights, 0.0)
    total, before = kept.sum(dim=0), weights.sum(dim=0)
    equal = knowing / knowing.sum(dim=0).clamp(min=1)
    shared = torch.where(total > 0, kept / torch.where(total > 0, total, 1.0), equal)
    return shared * before


def _one(voice: Output, learner: Output, batch: Batch) -> Output:
    # Float16 would take ``NEVER`` for -inf.
    logits = wide(voice.logits)
    if logits is not voice.logits:
        voice = voice._replace(logits=logits)
    if voice.groups is None:
        return voice
    fine = refined(voice, learner)
    certain = (labelled(batch) & _knows(voice, batch)).unsqueeze(-1) & (voice.groups < 0)
    return fine._replace(logits=torch.where(certain, NEVER, fine.logits))


def _knows(voice: Output, batch: Batch) -> Tensor:
    """(*,) whether a voice knows the label; true where there is none."""
    known = labelled(batch)
    if voice.groups is None:
        return torch.ones_like(known)
    place = batch.target.where(known, 0).unsqueeze(-1)
    return (voice.groups.gather(-1, place)[..., 0] >= 0) | ~known

"""Features of texts, of which padding is no part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_kd.types import NEVER, Batch, Tokens


def token_mask(batch: Batch, feature: Tensor) -> Tensor:
    """(b, l) bool, true at the tokens; everywhere of inputs that are no texts.

    Args:
        batch: the batch.
        feature: of the student, (b, l, d).

    Raises:
        ValueError: the feature has another number of tokens than the inputs.
    """
    if not isinstance(batch.inputs, Tokens):
        return torch.ones(feature.shape[:2], dtype=torch.bool, device=feature.device)
    mask = batch.inputs.mask
    if mask.shape != feature.shape[:2]:
        raise ValueError(
            f"features must have the {mask.shape[1]} tokens of the inputs, got "
            f"{feature.shape[1]}: a network that reads with a tokenizer of its own sees others"
        )
    return mask


def of_samples(weights: Tensor, batch: Batch) -> Tensor:
    """(m, b) the weights of whole samples; of sequences (m, b, l), the mean over their places.

    A sequence without a place has the mean over all its tokens.
    """
    if weights.ndim != 3 or weights.shape[1:] != batch.target.shape:
        return weights
    if batch.places is None:
        return weights.mean(dim=2)
    counted = batch.places | ~batch.places.any(dim=1, keepdim=True)
    return torch.where(counted, weights, 0.0).sum(dim=2) / counted.sum(dim=1)


def cleared(states: Tensor, mask: Tensor) -> Tensor:
    """(b, l, d) with zeros at padding: whatever stands there gets no gradient and gives no NaN."""
    return torch.where(mask.unsqueeze(2), states, states.new_zeros(()))


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(b,) the mean of values (b, l) over the tokens of each text; zero of a text without any."""
    total = torch.where(mask, values, values.new_zeros(())).sum(dim=1)
    return total / mask.sum(dim=1).clamp(min=1)


def in_heads(states: Tensor, heads: int) -> Tensor:
    """(b, h, l, d / h) of states (b, l, d), of which each head has some neighbouring dimensions."""
    apart: Tensor = states.unflatten(2, (heads, -1))
    return apart.transpose(1, 2)


def scaled_products(queries: Tensor, keys: Tensor) -> Tensor:
    """(b, h, l, l) the products of (b, h, l, d) over the square root of d, before any softmax."""
    return queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3])


def log_attention(scores: Tensor, mask: Tensor) -> Tensor:
    """(b, h, l, l) log-softmax over the keys that are tokens; as good as -inf at the others."""
    seen = mask[:, None, None, :]
    return torch.where(seen, scores, NEVER).log_softmax(dim=3)


def check_sequences(student: Tensor, teacher: Tensor, equal: bool = False) -> None:
    """See that two features are sequences of one length.

    Args:
        student: a feature of the student.
        teacher: a feature of the teacher.
        equal: whether their tokens must be equally wide, too.

    Raises:
        ValueError: they are not.
    """
    sequences = student.ndim == teacher.ndim == 3 and student.shape[1] == teacher.shape[1]
    if not sequences or (equal and student.shape[2] != teacher.shape[2]):
        wide = " and width" if equal else ""
        raise ValueError(
            f"features must be sequences (l, d) of one length{wide}, got "
            f"{tuple(student.shape[1:])} of the student and {tuple(teacher.shape[1:])} of a teacher"
        )


def check_heads(features: Sequence[Tensor], heads: int) -> None:
    """See that all features can be divided among heads.

    Raises:
        ValueError: one of them cannot.
    """
    for feature in features:
        if feature.shape[-1] % heads:
            raise ValueError(
                f"heads must divide the width of all features, got {heads} heads and a feature "
                f"{tuple(feature.shape[1:])}"
            )


def check_groups(student: Sequence[Tensor], teacher: Sequence[Tensor], what: Sequence[str]) -> None:
    """See that layers are named in equally many groups, such as query and key, query and key.

    Raises:
        ValueError: they are not, or the features are not sequences of one length.
    """
    size, named = len(what), ", ".join(what)
    if len(student) != len(teacher) or len(student) % size:
        raise ValueError(
            f"layers must be named as {named} for each pair, equally many for both networks, got "
            f"{len(student)} of the student and {len(teacher)} of a teacher"
        )
    for own, other in zip(student, teacher, strict=True):
        check_sequences(own, other)

"""Teachers whose features are standardised, so that no teacher's scale dominates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.functional import wide
from ensemble_kd.functional.moments import Moments, joined, moments
from ensemble_kd.functional.rotation import isotropic_rotation
from ensemble_kd.objectives.comparison import Passes, Studied

Balance = Literal["variance", "phi_s"]
"""How the features of a teacher are standardised."""

NOISE = 1e-6
"""Standard deviation, as a share of the mean, up to which a channel counts as constant."""

TINY = 1e-30
"""The same as a number, so that its inverse is finite in float32."""


def checked_balance(balance: Balance | None) -> Balance | None:
    """The same.

    Raises:
        ValueError: there is no such way.
    """
    if balance is not None and balance not in get_args(Balance):
        raise ValueError(f"balance must be null, variance or phi_s, got {balance!r}")
    return balance


class Balanced(Studied):
    """A comparison that is shown the features of a teacher in units of their own spread.

    Before training, one pass over the training data, with the augmentation of the first epoch,
    gives the mean and the variance of every channel of each feature, exactly: in float64, batches
    merged, population variance. For maps (b, d, h, w) that is over samples and places, for vectors
    (b, d) and sequences (b, l, d) over samples and tokens. ``variance`` subtracts the mean of each
    channel and divides by its standard deviation. ``phi_s`` subtracts the mean, rotates so that all
    dimensions have the same variance, and divides all by the same number: the shape of the
    distribution is kept, and weak channels are not blown up. It needs memory for d^2 values and
    time for d^3: choose pooled features rather than flattened ones. Either way the mean square of a
    feature over the training data is one, whatever the teacher, as far as it is not constant.

    The student is not standardised: what it says is compared with the standardised feature, so
    that a comparison with a connector has it learn the units too. A comparison that counts on where
    zero is, as ``ActivationBoundary`` and ``Overhaul`` do, loses its meaning.

    Source of ``phi_s``: Ranzinger et al., PHI-S: Distribution Balancing for Label-Free
    Multi-Teacher Distillation (arXiv 2410.01680), and NVlabs/RADIO @2fe5f72,
    examples/common/phi_s.py. Deviations: population variance; where there is no Hadamard matrix of
    a size, a rotation that makes the variances equal all the same, in place of a random one that
    nearly does. Channels that are constant up to rounding (standard deviation at most 1e-6 of the
    mean) become zeros under ``variance``, and so does a feature that is constant altogether under
    ``phi_s``. Until it has studied, it changes nothing.

    Args:
        comparison: compares all layers: takes the student's features and the teacher's.
        teachers: the features of the teacher, for their shapes.
        balance: how they are standardised.
    """

    def __init__(self, comparison: nn.Module, teachers: Sequence[Tensor], balance: Balance) -> None:
        super().__init__()
        self.comparison = comparison
        self.units = nn.ModuleList(_Units(feature, balance == "phi_s") for feature in teachers)

    def study(self, passes: Passes) -> None:
        """Measure the teacher's features; show the standardised ones to the comparison.

        Raises:
            UserError: a feature is not finite.
        """
        units = [unit for unit in self.units if isinstance(unit, _Units)]
        found: list[Moments] = []
        for features in passes():
            new = [unit.moments(feature) for unit, feature in zip(units, features, strict=True)]
            if found:
                new = [joined(old, more) for old, more in zip(found, new, strict=True)]
            found = new
        for unit, measured in zip(units, found, strict=True):
            unit.learn(measured)
        if isinstance(self.comparison, Studied):
            self.comparison.study(partial(self._passes, passes))

    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        """(b,) what the comparison says of the standardised features."""
        values: Tensor = self.comparison(students, self._standardised(teachers))
        return values

    def _standardised(self, teachers: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(unit(feature) for unit, feature in zip(self.units, teachers, strict=True))

    def _passes(self, passes: Passes) -> Iterator[tuple[Tensor, ...]]:
        return (self._standardised(features) for features in passes())


class _Units(nn.Module):
    """The mean, the directions and the spread of one feature of a teacher."""

    mean: Tensor
    scale: Tensor
    rotation: Tensor | None

    def __init__(self, feature: Tensor, rotated: bool) -> None:
        super().__init__()
        self.axis = 1 if feature.ndim > 3 else feature.ndim - 1
        size = feature.shape[self.axis]
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("rotation", torch.eye(size) if rotated else None)

    def moments(self, feature: Tensor) -> Moments:
        rows = feature.movedim(self.axis, -1).flatten(0, -2)
        return moments(rows, products=self.rotation is not None)

    def learn(self, found: Moments) -> None:
        if not (found.mean.isfinite().all() and found.scatter.isfinite().all()):
            raise UserError(
                "balance: expected finite features of a teacher, got infinite ones or NaN: name "
                "another layer, or look at the teacher"
            )
        self.mean.copy_(found.mean)
        if self.rotation is None:
            spread = (found.scatter / found.seen).sqrt()
            self.scale.copy_(_inverse(spread, found.mean.abs()))
            return
        # On the processor, where the solver gives the same axes every time.
        covariance = (found.scatter / found.seen).cpu()
        self.rotation.copy_(isotropic_rotation(covariance))
        spread = covariance.diagonal().mean().clamp(min=0).sqrt()
        self.scale.copy_(_inverse(spread, found.mean.cpu().square().mean().sqrt()))

    def forward(self, feature: Tensor) -> Tensor:
        """The feature in float32 or wider, without gradient."""
        with torch.no_grad():
            centred = wide(feature).movedim(self.axis, -1) - self.mean
            if self.rotation is not None:
                centred = centred @ self.rotation.mT
            return (self.scale * centred).movedim(-1, self.axis)


def _inverse(spread: Tensor, level: Tensor) -> Tensor:
    constant = spread <= (NOISE * level).clamp(min=TINY)
    return torch.where(constant, 0.0, 1.0 / torch.where(constant, 1.0, spread))

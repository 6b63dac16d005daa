"""Neuron selectivity transfer: which patterns over the places the channels have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.functional import unit, wide
from ensemble_kd.objectives.comparison import Comparison


class Nst(Comparison):
    """The squared maximum mean discrepancy of the channels of two features, for each sample.

    A channel is a vector over the places, of unit length. With the kernel k(x, y) = (x'y)^2 the
    value is mean_ij k(s_i, s_j) + mean_ij k(t_i, t_j) - 2 mean_ij k(s_i, t_j), zero when the
    channels are distributed alike, in whatever order and number; rounding may take it a little
    below. Nothing is learned. Of maps that differ in size, the larger is averaged to the smaller
    height and the smaller width; sequences must be equally long.

    Source: Huang and Wang, Like What You Like: Knowledge Distill via Neuron Selectivity Transfer
    (arXiv 1707.01219), equations 5 and 6 with the polynomial kernel of degree 2 and constant 0.
    Deviations: its weight is lambda / 2 in the paper; a channel of zeros stays zero.
    """

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The discrepancy.

        Raises:
            ValueError: the features are not two maps, or two sequences of one length.
        """
        maps = student.ndim == teacher.ndim == 4
        sequences = student.ndim == teacher.ndim == 3 and student.shape[1] == teacher.shape[1]
        if not (maps or sequences):
            raise ValueError(
                "selectivity needs places: features must be maps (d, h, w) or sequences (l, d) of "
                f"one length, got {tuple(student.shape[1:])} of the student and "
                f"{tuple(teacher.shape[1:])} of a teacher"
            )
        return _Discrepancy()


class _Discrepancy(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        own, other = wide(student), wide(teacher.detach())
        if own.ndim == 4 and own.shape[2:] != other.shape[2:]:
            size = min(own.shape[-2], other.shape[-2]), min(own.shape[-1], other.shape[-1])
            own, other = F.adaptive_avg_pool2d(own, size), F.adaptive_avg_pool2d(other, size)
        own, other = _channels(own), _channels(other)
        return _kernel(own, own) + _kernel(other, other) - 2 * _kernel(own, other)


def _channels(feature: Tensor) -> Tensor:
    """(b, d, places) with rows of unit length."""
    rows = feature.flatten(2) if feature.ndim == 4 else feature.mT
    return unit(rows)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(b,) the mean of the kernel over all pairs of channels."""
    return (x @ y.mT).square().mean(dim=(1, 2))

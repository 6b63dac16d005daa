"""Attention transfer: where the student looks, held against where a teacher looks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.functional import unit, wide
from ensemble_kd.objectives.comparison import Comparison


class AttentionTransfer(Comparison):
    """The mean squared distance of two attention maps of unit length; nothing is learned.

    For a sample, mean_p (q_p / |q| - t_p / |t|)^2 over the places p, where q and t are the means of
    the squared features over the channels. Channels may differ in number. Of maps that differ in
    size, the larger is averaged to the smaller height and the smaller width; sequences must be
    equally long.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention (arXiv 1612.03928),
    equation 2 with the map F_sum^2, and szagoruyko/attention-transfer. Deviations: as in that code,
    the square of the distance and its mean over the places stand for the distance, so that its
    weight is the 1000 that the paper divides by the number of elements, without the equation's 1/2;
    an attention map that is zero everywhere stays zero.
    """

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The distance.

        Raises:
            ValueError: the features are not two maps, or two sequences of one length.
        """
        maps = student.ndim == teacher.ndim == 4
        sequences = student.ndim == teacher.ndim == 3 and student.shape[1] == teacher.shape[1]
        if not (maps or sequences):
            raise ValueError(
                "attention needs places: features must be maps (d, h, w) or sequences (l, d) of "
                f"one length, got {tuple(student.shape[1:])} of the student and "
                f"{tuple(teacher.shape[1:])} of a teacher"
            )
        return _Attention()


class _Attention(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        own, other = _attention(student), _attention(teacher.detach())
        if own.ndim == 3 and own.shape != other.shape:
            size = min(own.shape[-2], other.shape[-2]), min(own.shape[-1], other.shape[-1])
            own, other = F.adaptive_avg_pool2d(own, size), F.adaptive_avg_pool2d(other, size)
        difference = unit(own.flatten(1)) - unit(other.flatten(1))
        return difference.square().mean(dim=1)


def _attention(feature: Tensor) -> Tensor:
    """(b, h, w) of a map, (b, l) of a sequence."""
    return wide(feature).square().mean(dim=1 if feature.ndim == 4 else 2)

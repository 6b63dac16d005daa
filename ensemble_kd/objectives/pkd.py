"""Patient distillation: the first token's states on the way through the network."""

from __future__ import annotations

from torch import Tensor, nn

from ensemble_kd.functional import unit, wide
from ensemble_kd.objectives.comparison import Comparison


class Pkd(Comparison):
    """The squared distance of two states that were scaled to unit length; nothing is learned.

    For a sample, |s / |s| - t / |t||^2, the sum over the dimensions: 2 - 2 cos, at most 4. Layers
    are taken with ``.first``, which is [CLS].

    Source: Sun et al., Patient Knowledge Distillation for BERT Model Compression (arXiv
    1908.09355), L_PT, the sum over the layers being that of ``Matched``. PKD-Skip pairs the
    student's layers with every second (or third, ...) one of the teacher's, PKD-Last with the last
    ones; the last layer of both is left out, since the classifier looks at it. In intersun's code
    @9e9e860 the mean over layers and dimensions stands for the sums, so that its weights (10 to
    1000) are larger by that factor: 500 with 5 layers of 768 is 0.13 here. Deviation: a state of
    zeros stays zero.
    """

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The distance.

        Raises:
            ValueError: the features are not two vectors of one width.
        """
        if not (student.ndim == teacher.ndim == 2 and student.shape == teacher.shape):
            raise ValueError(
                "features must be vectors (d,) of one width, taken with .first, got "
                f"{tuple(student.shape[1:])} of the student and {tuple(teacher.shape[1:])} of a "
                "teacher"
            )
        return _Distance()


class _Distance(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (unit(wide(student)) - unit(wide(teacher))).square().sum(dim=1)

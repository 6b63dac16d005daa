"""Cross-layer distillation: which layer of the student learns from which of a teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.functional import unit, wide
from ensemble_kd.networks.normalised import Normalised
from ensemble_kd.objectives.comparison import JointComparison
from ensemble_kd.objectives.reviewkd import as_map

SHRUNK = 4
"""How many times fewer values a query has than the similarities of which it is made."""


class SemCkd(JointComparison):
    """Every layer of the student predicts every layer of a teacher; attention says which counts.

    For a sample, (1 / S) sum_i sum_j a_ij d_ij over the S layers i of the student and the layers j
    of the teacher. d_ij is the mean squared distance of the teacher's feature from what a 1x1, a
    3x3 and a 1x1 convolution, with BatchNorm and ReLU between them, make of the student's; the
    larger of the two maps is averaged to the size of the smaller first. a_i. is a softmax over the
    teacher's layers of the products q_i'k_j of a query for each layer of the student and a key for
    each of the teacher, vectors of unit length that perceptrons with one hidden layer make of the
    sample's row in the matrix of inner products of a layer's features within the batch.

    The two networks need not have equally many layers. They are maps, or vectors, which count as
    maps with one place. The gradient reaches the student also through its queries. A sample's value
    depends on the others of the batch, through the similarities and BatchNorm. The perceptrons
    take so many similarities as they were made for: a larger batch is cut into parts which do not
    see each other, and of a smaller part the missing similarities are zero.

    Source: Chen et al., Cross-Layer Distillation with Semantic Calibration (arXiv 2012.03236), and
    DefangChen/SemCKD @0cdc4d9 (the loss) and @85140ad (attention and projections) for the sizes of
    layers and perceptrons and the factor 1 / S. Deviations: batches of any size; a channel with one
    value is normalised with the running statistics; vectors of zeros stay zero.

    Args:
        samples: similarities of which a query or a key is made, > 0: the batch size in that code.

    Raises:
        ValueError: the number is out of range.
    """

    def __init__(self, samples: int = 64) -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        self.samples = samples

    def across(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> nn.Module:
        """The attention, the projections and the distance.

        Raises:
            ValueError: a feature is no map and no vector.
        """
        own = [as_map(feature).shape[1] for feature in students]
        other = [as_map(feature).shape[1] for feature in teachers]
        return _CrossLayer(own, other, self.samples)


class _CrossLayer(nn.Module):
    def __init__(self, students: Sequence[int], teachers: Sequence[int], samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.queries = nn.ModuleList(_perceptron(samples) for _ in students)
        self.keys = nn.ModuleList(_perceptron(samples) for _ in teachers)
        self.projections = nn.ModuleList(
            nn.ModuleList(_projection(own, other) for other in teachers) for own in students
        )

    def attention(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        """(b, students, teachers) how much each pair counts, sums to one over the teachers."""
        queries = [q(self._similarities(s)) for q, s in zip(self.queries, students, strict=True)]
        keys = [k(self._similarities(t)) for k, t in zip(self.keys, teachers, strict=True)]
        energies = torch.einsum(
            "bid, bjd -> bij",
            unit(wide(torch.stack(queries, dim=1))),
            unit(wide(torch.stack(keys, dim=1))),
        )
        return energies.softmax(dim=2)

    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        own = [as_map(wide(feature)) for feature in students]
        other = [as_map(wide(feature.detach())) for feature in teachers]
        distances = torch.stack(
            [
                torch.stack([_distance(to, s, t) for to, t in zip(row, other, strict=True)], dim=1)
                for row, s in zip(self._rows(), own, strict=True)
            ],
            dim=1,
        )
        attention = self.attention(own, other)
        return (attention * distances).sum(dim=(1, 2)) / len(own)

    def _rows(self) -> list[nn.ModuleList]:
        return [row for row in self.projections if isinstance(row, nn.ModuleList)]

    def _similarities(self, feature: Tensor) -> Tensor:
        """(b, samples) inner products within each part of the batch."""
        parts = [part @ part.mT for part in feature.flatten(1).split(self.samples)]
        return torch.cat([F.pad(part, (0, self.samples - part.shape[1])) for part in parts])


def _distance(projection: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """(b,) the mean squared distance, in the smaller of both sizes."""
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    mapped = wide(projection(F.adaptive_avg_pool2d(student, (height, width))))
    target = F.adaptive_avg_pool2d(teacher, (height, width))
    return (mapped - target).square().mean(dim=(1, 2, 3))


def _perceptron(samples: int) -> nn.Module:
    size = max(samples // SHRUNK, 1)
    return nn.Sequential(nn.Linear(samples, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))


def _projection(student: int, teacher: int) -> nn.Module:
    width = 2 * teacher
    return nn.Sequential(
        nn.Conv2d(student, width, 1, bias=False),
        Normalised(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        Normalised(width),
        nn.ReLU(),
        nn.Conv2d(width, teacher, 1, bias=False),
    )

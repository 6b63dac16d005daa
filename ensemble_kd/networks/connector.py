"""Connectors: what makes a feature of the student comparable with one of a teacher."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Connector(nn.Module):
    """Maps features of the student to the shape of a teacher's.

    Feature maps go through a 1x1 convolution, then are interpolated (bilinear, larger or smaller)
    to the height and width of the teacher's; vectors and sequences of vectors go through a linear
    layer. A map of the student that meets a vector of the teacher is averaged over its places
    first. Sequences must be equally long.

    Args:
        student: a feature of the student: (b, d, h, w), (b, l, d) or (b, d).
        teacher: a feature of the teacher.
        bias: whether the layer has a bias.

    Raises:
        ValueError: features of these shapes cannot be connected.
    """

    def __init__(self, student: Tensor, teacher: Tensor, bias: bool = True) -> None:
        super().__init__()
        self.size: tuple[int, ...] | None = None
        self.pooled = student.ndim == 4 and teacher.ndim == 2
        if student.ndim == 4 and teacher.ndim == 4:
            self.layer: nn.Module = nn.Conv2d(student.shape[1], teacher.shape[1], 1, bias=bias)
            if student.shape[2:] != teacher.shape[2:]:
                self.size = tuple(teacher.shape[2:])
        elif self.pooled:
            self.layer = nn.Linear(student.shape[1], teacher.shape[1], bias=bias)
        elif student.shape[:-1] == teacher.shape[:-1] and student.ndim in (2, 3):
            self.layer = nn.Linear(student.shape[-1], teacher.shape[-1], bias=bias)
        else:
            raise ValueError(
                f"features must be maps (d, h, w), sequences (l, d) or vectors (d,) alike, got "
                f"{tuple(student.shape[1:])} of the student and {tuple(teacher.shape[1:])} of a "
                "teacher"
            )

    def forward(self, feature: Tensor) -> Tensor:
        """The student's feature in the shape of the teacher's."""
        if self.pooled:
            feature = feature.mean(dim=(2, 3))
        mapped: Tensor = self.layer(feature)
        if self.size is None:
            return mapped
        return F.interpolate(mapped, self.size, mode="bilinear", align_corners=False)

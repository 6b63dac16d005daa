"""Vectors of unit length."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """Vectors (*, d) divided by their Euclidean length; zero stays zero, with zero gradient.

    A small number in the denominator would give a vector of zeros a gradient as large as its
    inverse.
    """
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, 1.0)

"""Teachers that are sure count for more."""

from __future__ import annotations

from torch import Tensor

from ensemble_kd.functional import complement, entropy, normalise, stacked
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings.weighting import Weighting


class Entropy(Weighting):
    """w_k = (1 - H_k / sum_j H_j) / (m - 1) with H_k the entropy of teacher k's softmax at T = 1.

    One teacher has the weight one; teachers without any entropy share equally.

    Source: EBKD (Kwon et al., ICASSP 2020). Deviation: the weights sum to one. The code that is in
    use (of CA-MKD) omits 1 / (m - 1) and divides the loss by m; to reproduce it, multiply the soft
    term's weight by (m - 1) / m.
    """

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *), larger for a teacher of lower entropy."""
        return complement(normalise(entropy(stacked(teachers, student))))

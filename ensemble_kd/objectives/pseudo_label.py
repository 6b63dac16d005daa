"""The class that the teachers rank first, as a hard label."""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kd.functional import (
    cross_entropy,
    log_mean_probabilities,
    log_probabilities,
    normalise,
    teachers_logits,
)
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.types import Batch, Output, Progress


class PseudoLabel(Objective):
    """W CE(argmax_c sum_k (w_k / W) p_kc, q) with W = sum_k w_k: a class in place of soft targets.

    p_k are the probabilities of teacher k and q those of the student. Nothing is left of how sure
    the teachers are, and of what they think of the other classes. Every sample gets such a label,
    also one that has a label of its own, which is not looked at: beside ``Soft`` or as a control of
    it, this then differs in the form of the target alone, and not in the samples.

    Source: Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep
    Neural Networks (ICML 2013 workshop): the class of the largest probability as a label.
    Deviations: there the network labels the unlabelled samples for itself, anew in each step and
    under a weight that is ramped up; here teachers label all samples, and a ramp is a ``schedule``
    of the term.

    The student's gradient flows through the student's logits and, for a weighting that is learned,
    through W; the teachers receive none. Of equally likely classes the first one counts. The
    student is asked among the classes that some teacher knows.
    """

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(*,) cross-entropy of each sample; zero, with zero gradient, where all weights are zero.

        Raises:
            ValueError: there is no teacher, a teacher's logits differ in shape from the student's,
                or the weights are not (m, *).
        """
        log_p = log_probabilities(teachers_logits(teachers, student, weights))
        merged = log_mean_probabilities(log_p, normalise(weights.detach()))
        among = torch.where(merged > -torch.inf, student.logits, -torch.inf)
        return weights.sum(dim=0) * cross_entropy(among, merged.argmax(dim=-1))

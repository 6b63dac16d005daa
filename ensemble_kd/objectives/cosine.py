"""The direction of each token's state."""

from __future__ import annotations

from torch import Tensor, nn

from ensemble_kd.functional import unit, wide
from ensemble_kd.objectives.comparison import Comparison
from ensemble_kd.objectives.tokens import check_sequences, cleared, token_mean


class Cosine(Comparison):
    """1 - cos of the states of student and teacher, the mean over the tokens of a text.

    Nothing is learned. Padding does not count.

    Source: Sanh et al., DistilBERT (arXiv 1910.01108), section 3, of the last states, and
    huggingface's research projects @fccd0cd, where its weight is 1 beside 5 for the soft targets
    and 2 for the labels, or a third each. Deviations: the mean over the tokens of each text and
    then over the texts, in place of that over all tokens of a batch, in which long texts count for
    more; a state of zeros has cosine zero.
    """

    needs_mask = True

    def between(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """The distance.

        Raises:
            ValueError: the features are not two sequences of one length and width.
        """
        check_sequences(student, teacher, equal=True)
        return _Direction()


class _Direction(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        own, other = cleared(wide(student), mask), cleared(wide(teacher), mask)
        return token_mean(1 - (unit(own) * unit(other)).sum(dim=2), mask)

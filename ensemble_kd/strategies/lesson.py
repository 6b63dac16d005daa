"""One learner, several voices: the terms that a network descends under them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ensemble_kd.networks.taps import listen
from ensemble_kd.objectives import Objective, Term
from ensemble_kd.types import Batch, Output, Progress
from ensemble_kd.weightings import Weighting


class Lesson(nn.Module):
    """Terms and the weighting of those who teach: the part that most strategies share.

    Args:
        terms: what is matched, by name; at least one.
        weighting: how much each voice counts.

    Raises:
        ValueError: there are no terms.
    """

    def __init__(self, terms: Mapping[str, Term], weighting: Weighting) -> None:
        super().__init__()
        if not terms:
            raise ValueError("terms must hold at least one term, got none")
        self.terms = nn.ModuleDict(terms)
        self.weighting = weighting

    def taps(self) -> tuple[str, ...]:
        """The features of the learner that the terms need."""
        objectives = (part for part in self.terms.modules() if isinstance(part, Objective))
        return tuple(dict.fromkeys(tap for each in objectives for tap in each.student_taps()))

    def hear(self, learner: nn.Module, batch: Batch) -> Output:
        """What the learner says of a batch, with the features that the terms need."""
        return listen(learner, batch.inputs, self.taps())

    def weights(
        self, learner: Output, voices: tuple[Output, ...], batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *) how much each of the m voices counts."""
        weights: Tensor = self.weighting(voices, learner, batch, progress)
        return weights

    def losses(
        self,
        learner: Output,
        voices: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """The weighted terms by name, scalars."""
        return {
            name: term(learner, voices, weights, batch, progress)
            for name, term in self.terms.items()
        }


def detached(output: Output) -> Output:
    """An output as a voice: the same values, without gradient."""
    features = {name: feature.detach() for name, feature in output.features.items()}
    return Output(output.logits.detach(), features)

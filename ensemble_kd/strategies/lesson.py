"""One learner, several voices: the terms that a network descends under them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from ensemble_kd.functional import uncast, wide
from ensemble_kd.networks.taps import listen
from ensemble_kd.objectives import Objective, Term
from ensemble_kd.strategies.hearing import heard, of_those_who_know
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
        self.of_peers = nn.ModuleDict()
        # Asked for in each step, and found by walking through all modules.
        self._found: dict[str, list[Objective]] = {}

    def taps(self) -> tuple[str, ...]:
        """The features of the learner that the terms need."""
        return tuple(dict.fromkeys(tap for o in self._objectives() for tap in o.student_taps()))

    def hear(self, learner: nn.Module, batch: Batch) -> Output:
        """What the learner says of a batch, with the features that the terms need."""
        return listen(learner, batch.inputs, self.taps())

    def hear_teacher(self, teacher: nn.Module, batch: Batch, number: int) -> Output:
        """What a network says that teaches, with the features that the terms need of it."""
        return listen(teacher, batch.inputs, self._teacher_taps(number))

    def hear_peer(self, peer: nn.Module, batch: Batch, voices: int) -> Output:
        """What a network says that learns and teaches, with the features for both.

        Args:
            peer: the network.
            batch: the batch.
            voices: how many teach each learner.

        Raises:
            ValueError: the features that teachers are asked for are not the same for all of them.
        """
        taps = [self._teacher_taps(number) for number in range(voices)]
        if any(each != taps[0] for each in taps):
            raise ValueError(
                "teachers must be one list of layers where networks teach each other, got "
                "another one for each"
            )
        return listen(peer, batch.inputs, tuple(dict.fromkeys((*self.taps(), *taps[0]))))

    def meet(self, name: str, learner: Output, voices: tuple[Output, ...]) -> None:
        """Make what compares the features of one learner with those of its voices.

        Each learner gets objectives of its own, so that no two share a connector.

        Args:
            name: of the learner; the ``student`` has the terms that were given.
            learner: what it says, with its features.
            voices: what those say who will teach it.

        Raises:
            ValueError: features cannot be compared, or an objective wants to study its teachers
                before training, when some of them have yet to learn.
        """
        if not self.taps():
            return
        if name != "student":
            self.of_peers[name] = copy.deepcopy(self.terms).train()
            self._found.pop(name, None)
        for objective in self._objectives(name):
            if objective.student_taps():
                objective.meet(learner, voices)
            if objective.studies_teachers():
                raise ValueError(
                    f"{type(objective).__name__} studies its teachers before the training, which "
                    "networks that teach while they learn cannot offer"
                )

    def own_parameters(self, name: str) -> list[nn.Parameter]:
        """What the terms of one learner learn; the student's include those of the weighting."""
        own = [*self._terms(name).parameters()] if name in ("student", *self.of_peers) else []
        return [*own, *self.weighting.parameters()] if name == "student" else own

    def weights(
        self, learner: Output, voices: tuple[Output, ...], batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, *) how much each of the m voices counts.

        Of a sample whose label a voice does not know, that voice does not speak; the others share
        its weight.
        """
        learner = learner._replace(logits=wide(learner.logits))
        with uncast(learner.logits):
            weights: Tensor = self.weighting(
                heard(voices, learner, batch), learner, batch, progress
            )
        return of_those_who_know(weights, voices, batch)

    def losses(
        self,
        learner: Output,
        voices: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
        name: str = "student",
        only: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms by name, scalars, of the learner of that name; all, or ``only`` some.

        Args:
            learner: what it says.
            voices: m outputs of those who teach it.
            weights: (m, *) how much each of them counts.
            batch: the batch.
            progress: how far the stage has come.
            name: of the learner, as it was met.
            only: names of terms.
        """
        teaching = heard(voices, learner, batch)
        return {
            term_name: term(learner, teaching, weights, batch, progress)
            for term_name, term in self._terms(name).items()
            if only is None or term_name in only
        }

    def _teacher_taps(self, number: int) -> tuple[str, ...]:
        taps = (tap for each in self._objectives() for tap in each.teacher_taps(number))
        return tuple(dict.fromkeys(taps))

    def _terms(self, name: str) -> nn.ModuleDict:
        return cast(nn.ModuleDict, self.of_peers[name]) if name in self.of_peers else self.terms

    def _objectives(self, name: str = "student") -> list[Objective]:
        if name not in self._found:
            parts = self._terms(name).modules()
            self._found[name] = [part for part in parts if isinstance(part, Objective)]
        return self._found[name]


def detached(output: Output) -> Output:
    """An output as a voice: the same values, without gradient."""
    features = {name: feature.detach() for name, feature in output.features.items()}
    return Output(output.logits.detach(), features, output.groups)

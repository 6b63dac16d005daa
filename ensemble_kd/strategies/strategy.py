"""What a strategy is: who learns from whom."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ensemble_kd.networks.taps import listen
from ensemble_kd.objectives import Objective
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn


class Strategy(nn.Module, ABC):
    """Who learns from whom, as a generator of turns.

    Networks, objectives and weightings that a strategy needs are its registered children. It does
    not hold the student and the teachers: they are handed to it.

    Attributes:
        views: how many independent augmentations of each sample it wants; the first is
            ``Batch.inputs``, the others are ``Batch.views``.
        apart: each process of a group that was started together trains by itself, and the strategy
            sees to what they learn of each other; otherwise they share every step.
    """

    views: int = 1
    apart: bool = False

    def meet(self, student: nn.Module) -> None:
        """Make what depends on the student, such as layers of its sizes.

        Called once, as soon as both exist and before anything else; what is drawn is drawn from the
        stage's seed.
        """

    def acquaint(self, student: nn.Module, teachers: Ensemble, batch: Batch) -> None:
        """Let the objectives see the features that they will compare.

        Called once, in eval mode and without gradient, before anything is trained or restored.

        Args:
            student: the student.
            teachers: the networks that teach it, with the taps that the objectives asked for.
            batch: a few samples; only shapes matter.

        Raises:
            ValueError: features cannot be compared.
        """
        asking = [each for each in objectives(self) if each.student_taps()]
        said = teachers(batch, Progress(0, 0, 0.0)) if asking else ()
        for objective in asking:
            objective.meet(listen(student, batch.inputs, objective.student_taps()), said)

    def begin(self, student: nn.Module, teachers: Ensemble) -> None:
        """Take what the start of a training needs from the teachers, such as their weights.

        Called once, before the first batch; not when trained weights are restored.
        """

    def enter(self, student: nn.Module, step: int, data: str) -> None:
        """Meet whoever takes part from outside.

        Called in each process that trains, before its first batch, also of a training that is taken
        up again; not when a stage is only tried out.

        Args:
            student: the student.
            step: optimiser steps taken so far.
            data: digest of the data.

        Raises:
            UserError: it is not possible.
        """

    def leave(self, student: nn.Module, step: int) -> None:
        """Say farewell: called there after the last batch, with the weights that will be kept.

        Args:
            student: the student.
            step: optimiser steps taken.
        """

    def recorded(self) -> dict[str, Any]:
        """What an artefact records of the training beside the settings, as plain values."""
        return {}

    def players(self, student: nn.Module) -> dict[str, list[nn.Parameter]]:
        """The parameters that each player steps; by default one player has them all.

        One player means that the trainer optimises automatically; several take turns. Players share
        parameters only where a method steps the same network by two optimisers.
        """
        everything = [*student.parameters(), *self.parameters()]
        return {"student": [p for p in everything if p.requires_grad]}

    @abstractmethod
    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """The moves of one batch, in order; code after a ``yield`` sees the stepped weights.

        Where several batches are accumulated for one step, the code after the only ``yield`` runs
        once, for the last of them.
        """

    def validated(self, said: Mapping[str, Output], batch: Batch, progress: Progress) -> None:
        """Hear what the predictors, by name, said of a validation batch.

        All batches of one pass over the validation split carry the same progress.
        """

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """The networks that learn, by the name under which they are reported.

        Each takes a batch's inputs. ``student`` is always among them.
        """
        return {"student": self.deliverable(student)}

    def learners(self, student: nn.Module) -> dict[str, nn.Module]:
        """The networks that learn, by name, which need not be those that are reported."""
        return self.predictors(student)

    def deliverable(self, student: nn.Module) -> nn.Module:
        """The network that is exported and that may teach a later stage."""
        return student


def objectives(strategy: Strategy) -> list[Objective]:
    """Every objective that a strategy holds."""
    return [part for part in strategy.modules() if isinstance(part, Objective)]


def learning(strategy: Strategy, student: nn.Module) -> list[nn.Module]:
    """The student and the networks of a strategy that learn, each once.

    What a strategy makes of parts of others, such as a head on the student's trunk, is none.
    """
    own = set(map(id, strategy.modules()))
    found = {id(student): student}
    for network in strategy.learners(student).values():
        if id(network) in own and any(p.requires_grad for p in network.parameters()):
            found[id(network)] = network
    return list(found.values())

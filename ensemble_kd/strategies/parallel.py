"""All teachers at once: one student learns from their merged opinion."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ensemble_kd.functional import uncast, widened
from ensemble_kd.networks.span import at_rest, freeze_outside
from ensemble_kd.objectives import Term
from ensemble_kd.strategies.hearing import heard
from ensemble_kd.strategies.lesson import Lesson, detached
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Progress, Turn, as_output
from ensemble_kd.weightings import Weighting


class Parallel(Strategy):
    """The student descends every term, under all teachers at the same time.

    Without teachers and with label terms only this is ordinary training: so are the teachers
    themselves trained, and the control.

    Source: Hinton, Vinyals and Dean (arXiv 1503.02531), section 2; on unlabelled samples, where
    only the soft terms count, Bucila, Caruana and Niculescu-Mizil, Model Compression (KDD 2006).

    Args:
        terms: what is matched, by name.
        weighting: how much each teacher counts.
        after: path of a module of the student: it and all before it stay as they are, in eval mode.
        up_to: path of a module of the student: all behind it stays as it is, likewise.
    """

    def __init__(
        self,
        terms: dict[str, Term],
        weighting: Weighting,
        after: str | None = None,
        up_to: str | None = None,
    ) -> None:
        super().__init__()
        self.lesson = Lesson(terms, weighting)
        self.after = after
        self.up_to = up_to
        self._resting: tuple[str, ...] = ()

    def meet(self, student: nn.Module) -> None:
        """Let only the part of the student learn that shall.

        Raises:
            ValueError: the student has no such modules.
        """
        if self.after is not None or self.up_to is not None:
            self._resting = freeze_outside(student, self.after, self.up_to)

    def players(self, student: nn.Module) -> dict[str, list[nn.Parameter]]:
        """The student; and the weighting, when it learns from what it did to the student."""
        players = super().players(student)
        weighting = self.lesson.weighting
        if weighting.learns_afterwards:
            own = {id(parameter) for parameter in weighting.parameters()}
            players["student"] = [p for p in players["student"] if id(p) not in own]
            players["weighting"] = [p for p in weighting.parameters() if p.requires_grad]
        return players

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """The student descends all terms; a weighting that learns afterwards has a second turn."""
        taught = teachers(batch, progress)
        with at_rest(student, self._resting):
            learned = self.lesson.hear(student, batch)
        weighting = self.lesson.weighting
        weights = self.lesson.weights(learned, taught, batch, progress)
        terms = self.lesson.losses(learned, taught, weights, batch, progress)
        yield Turn("student", terms, weighting.measurements(weights))
        if weighting.learns_afterwards:
            with torch.no_grad(), at_rest(student, self._resting):
                after = as_output(student(batch.inputs))
            voices = heard(taught, learned, batch)
            with uncast(weights):
                judged = weighting.afterwards(
                    weights, voices, widened(detached(learned)), widened(after), batch, progress
                )
            yield Turn("weighting", judged)

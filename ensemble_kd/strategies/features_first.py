"""Features first, everything else afterwards: two stages under the same teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ensemble_kd.build import Node
from ensemble_kd.errors import UserError, nearest
from ensemble_kd.stage import Given, Stage
from ensemble_kd.strategies.terms import looking, with_terms
from ensemble_kd.strategies.two_phases import checked_share, in_two


class FeaturesFirst:
    """The student first descends some of the terms alone, then the same network all the others.

    Both stages have the same teachers and share the epochs, so that together they cost what the
    control costs. The second one starts from the weights of the first, with a learning-rate
    schedule of its own; what the first one learned beside the student, such as connectors, has
    served its purpose and stays behind. What no term of the first stage depends on, such as the
    classifier behind the last compared layer, is not changed by it (only its BatchNorm statistics
    follow what they see), so the accuracy of ``phase/1`` means nothing, and its last weights are
    kept whatever ``select`` says. On several processes the trainer must be told of what is left
    alone: ``trainer.strategy=ddp_spawn_find_unused_parameters_true``.

    Source: with ``objective=hint``, FitNets (Romero et al., arXiv 1412.6550), algorithm 1: stage 1
    trains the student up to its guided layer with the hint loss alone, stage 2 the whole student by
    distillation. With ``objective=activation_boundary``, AB (Heo et al., arXiv 1811.03233): the
    boundaries alone, then distillation; for its second stage in bhheo/AB_distillation @a7701d3,
    which has soft targets and no labels, add ``objective.label_weight=0``. In RepDistiller @b84f547
    the second stage of AB has labels only: ``objective.soft_weight=0``. Deviation: the default
    share of the first stage, a quarter of the epochs, is not taken from either paper.

    Args:
        first: names of the terms that go first; every term that looks at features of the student if
            not given.
        otherwise: nodes of the terms that go first where the objective has none that looks at
            features, by name.
        share: of the epochs for the first stage, in (0, 1); each stage has at least one epoch.
        allow: packages beside this project's from which terms may come.

    Raises:
        ValueError: the share is out of range.
    """

    FIRST = "phase/1"
    """Name of the first stage."""

    def __init__(
        self,
        first: Sequence[str] | None = None,
        otherwise: Mapping[str, Node] | None = None,
        share: float = 0.25,
        allow: Sequence[str] = (),
    ) -> None:
        self.first = None if first is None else tuple(first)
        self.otherwise = dict(otherwise or {})
        self.share = checked_share(share)
        self.allow = tuple(allow)

    def stages(self, last: Stage) -> tuple[Stage, ...]:
        """The two stages; the second is the student's own.

        Raises:
            UserError: no term would go first, or none would be left for the second stage, or a name
                is not that of a term, or the strategy was given as an object.
        """
        strategy = last.strategy
        if isinstance(strategy, Given):
            raise UserError(
                "strategy: features_first takes terms apart and needs a strategy by name, "
                "got an object"
            )
        own: Mapping[str, Node] = strategy["terms"]
        alone = self.first is not None or looking(own, self.allow)
        terms = own if alone else {**self.otherwise, **own}
        leading = self._leading(terms)
        following = [name for name in terms if name not in leading]
        if not following:
            raise UserError(
                f"strategy.first: expected to leave a term for the second stage, "
                f"got all of them: {', '.join(leading)}"
            )
        first, second = in_two(last, self.FIRST, self.share)
        return (
            replace(first, strategy=with_terms(strategy, terms, leading), select="last"),
            replace(second, strategy=with_terms(strategy, terms, following)),
        )

    def _leading(self, terms: Mapping[str, Node]) -> list[str]:
        """The names of the terms that go first, in their own order."""
        if self.first is None:
            found = list(looking(terms, self.allow))
            if not found:
                raise UserError(
                    "objective: strategy=features_first needs a term that looks at features, as "
                    f"objective=hint has, got {', '.join(terms)}"
                )
            return found
        if not self.first:
            raise UserError("strategy.first: expected at least one term, got none; null finds them")
        for name in self.first:
            if name not in terms:
                raise UserError(
                    f"strategy.first: the objective has no term {name!r}{nearest(name, terms)}"
                )
        return [name for name in terms if name in self.first]

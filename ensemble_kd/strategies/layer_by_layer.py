"""Layer by layer, then the predictions: a chain of stages under the same teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ensemble_kd.build import Node
from ensemble_kd.errors import UserError
from ensemble_kd.networks.taps import FIRST, INPUT, POOLED, PREACTIVATION
from ensemble_kd.objectives import Matched
from ensemble_kd.stage import Given, Stage
from ensemble_kd.strategies.terms import looking, with_terms
from ensemble_kd.strategies.two_phases import checked_share


class LayerByLayer:
    """The student learns one layer after the other, and at last, as a whole, the other terms.

    There is a stage for each layer. Each starts from the weights of the one before, descends the
    terms that look at features, of this layer only, and changes nothing but what lies between the
    layer before and this one; the first begins at the beginning and so with the embeddings. The
    last stage descends all other terms and changes everything. All have the same teachers and share
    the epochs, so that together they cost what the control costs; each has a learning-rate schedule
    of its own. What is learned beside the student, such as connectors, stays behind with its stage.
    The accuracy of ``layer/1`` and so on means nothing, and their last weights are kept whatever
    ``select`` says. Layers that rest are in eval mode: they have no dropout, and their BatchNorm
    statistics stay.

    Source: with ``objective=mobilebert``, progressive knowledge transfer of Sun et al., MobileBERT
    (arXiv 2004.02984), section 3.5. Deviations: lower layers rest altogether, where the paper gives
    them a smaller learning rate; embeddings and classifier are not copied from the teacher but
    learned, the first with the first layer and the second in the last stage, where the paper goes
    on with masked language modelling; the default share of the layers, half of the epochs, is not
    taken from the paper.

    Args:
        layers: paths of the student's modules, in the order in which they run, at which the stages
            end; if not given, those that the terms look at, and of modules inside each other the
            outer ones.
        otherwise: nodes of the terms for the layers where the objective has none that looks at
            features, by name.
        share: of the epochs for the layers, in (0, 1), divided equally; each stage has at least
            one epoch.
        allow: packages beside this project's from which terms may come.

    Raises:
        ValueError: the share is out of range.
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        otherwise: Mapping[str, Node] | None = None,
        share: float = 0.5,
        allow: Sequence[str] = (),
    ) -> None:
        self.layers = None if layers is None else tuple(layers)
        self.otherwise = dict(otherwise or {})
        self.share = checked_share(share)
        self.allow = tuple(allow)

    def stages(self, last: Stage) -> tuple[Stage, ...]:
        """A stage for each layer, and the student's own.

        Raises:
            UserError: no term looks at features, or none is left for the last stage, or what a term
                looks at cannot be divided among the layers, or the strategy was given as an object.
        """
        strategy = last.strategy
        if isinstance(strategy, Given):
            raise UserError(
                "strategy: layer_by_layer takes terms apart and needs a strategy by name, "
                "got an object"
            )
        own: Mapping[str, Node] = strategy["terms"]
        terms = own if looking(own, self.allow) else {**self.otherwise, **own}
        taps = {name: _taps(name, each) for name, each in looking(terms, self.allow).items()}
        if not taps:
            raise UserError(
                "objective: strategy=layer_by_layer needs a term that looks at features, as "
                f"objective=mobilebert has, got {', '.join(terms)}"
            )
        following = [name for name in terms if name not in taps]
        if not following:
            raise UserError(
                "objective: expected to leave a term for the last stage, got only terms that look "
                f"at features: {', '.join(terms)}"
            )
        layers = self._layers(taps)
        epochs = _shared(last.epochs, len(layers), self.share)
        stages: list[Stage] = []
        for number, layer in enumerate(layers):
            nodes = {
                name: _part(terms[name], kept)
                for name, kept in ((name, _inside(each, layer)) for name, each in taps.items())
                if kept
            }
            spans = {"after": layers[number - 1] if number else None, "up_to": layer}
            stages.append(
                replace(
                    last,
                    name=f"layer/{number + 1}",
                    epochs=epochs[number],
                    strategy={**with_terms(strategy, nodes, nodes), **spans},
                    select="last",
                    initial=stages[-1].name if stages else last.initial,
                )
            )
        final = replace(
            last,
            epochs=epochs[-1],
            strategy=with_terms(strategy, terms, following),
            initial=stages[-1].name,
        )
        return (*stages, final)

    def _layers(self, taps: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Where the stages end."""
        paths = list(dict.fromkeys(_module(tap) for each in taps.values() for tap in each))
        outer = tuple(
            path for path in paths if not any(path.startswith(f"{each}.") for each in paths)
        )
        if self.layers is None:
            return outer
        if not self.layers:
            raise UserError(
                "strategy.layers: expected at least one layer, got none; null finds them"
            )
        for path in paths:
            if not any(f"{path}.".startswith(f"{layer}.") for layer in self.layers):
                raise UserError(
                    f"strategy.layers: the objective looks at {path}, which is in none of "
                    f"{', '.join(self.layers)}"
                )
        for layer in self.layers:
            if not any(f"{path}.".startswith(f"{layer}.") for path in paths):
                raise UserError(f"strategy.layers: the objective looks at nothing in {layer}")
        return self.layers


def _taps(name: str, objective: Any) -> tuple[str, ...]:
    """The student's layers that a term compares with as many of each teacher."""
    if not isinstance(objective, Matched):
        raise UserError(
            f"objective: strategy=layer_by_layer needs terms with a list of layers, got "
            f"{type(objective).__name__} as {name}"
        )
    own = objective.layers.student
    if any(len(layers) != len(own) for layers in objective.layers.lists):
        raise UserError(
            f"objective: strategy=layer_by_layer needs as many layers of the teachers as of the "
            f"student, got {len(own)} of the student in the term {name}"
        )
    return own


def _module(tap: str) -> str:
    """The path of the module at which a feature is taken."""
    for endings in ((POOLED, FIRST), (INPUT, PREACTIVATION)):
        for ending in endings:
            tap = tap.removesuffix(ending)
    return tap


def _inside(taps: Sequence[str], layer: str) -> list[int]:
    """The places of those taps that are taken inside a layer."""
    return [place for place, tap in enumerate(taps) if f"{_module(tap)}.".startswith(f"{layer}.")]


def _part(term: Node, places: Sequence[int]) -> Node:
    """A term that compares only the layers at some places of its lists."""
    objective = term["objective"]
    lists = objective["teachers"]
    shared = all(isinstance(layer, str) for layer in lists)
    factors = objective.get("factors")
    kept = {
        "student": _some(objective["student"], places),
        "teachers": _some(lists, places) if shared else [_some(each, places) for each in lists],
        **({} if factors is None else {"factors": _some(factors, places)}),
    }
    return {**term, "objective": {**objective, **kept}}


def _some(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [values[place] for place in places]


def _shared(epochs: int, layers: int, share: float) -> list[int]:
    """The epochs of a stage for each layer, and of the last stage."""
    before = min(max(round(share * epochs), layers), max(epochs - 1, layers))
    each, more = divmod(before, layers)
    return [*(each + (number < more) for number in range(layers)), max(epochs - before, 1)]

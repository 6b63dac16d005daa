"""Taking the terms of a strategy apart, as nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ensemble_kd.build import Node, build
from ensemble_kd.objectives import Objective, Term


def looking(terms: Mapping[str, Node], allow: Sequence[str]) -> dict[str, Objective]:
    """The objectives of those terms that look at features of the student, by name.

    Args:
        terms: nodes of terms.
        allow: packages beside this project's from which they may come.
    """
    found = {}
    for name, node in terms.items():
        term: Term = build(node, f"objective.terms.{name}", allow)
        if term.objective.student_taps():
            found[name] = term.objective
    return found


def with_terms(strategy: Node, terms: Mapping[str, Node], names: Iterable[str]) -> Node:
    """A strategy with some of several terms."""
    return {**strategy, "terms": {name: terms[name] for name in names}}

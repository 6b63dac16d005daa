"""Controls: the same student trained otherwise, with which a distilled one is compared.

A control is an object with ``stages(name, ground)``, made from a node of the group ``control``. Its
stages have the network, the start, the seed, the epochs and the optimiser of the student, and
nothing of the strategy that is judged: all runs that differ in that alone share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from ensemble_kd.build import Node, build
from ensemble_kd.errors import UserError
from ensemble_kd.stage import Stage, derived_seed, with_new_weights


@dataclass(frozen=True)
class Ground:
    """What the controls of a run are made from.

    Attributes:
        alone: the stage of the student, as a network that learns without teachers.
        teachers: names of the run's teachers, in order, whether its strategy hears them or not.
        trained: the stages of those that this run trains.
        classes: number of classes of the data.
    """

    alone: Stage
    teachers: tuple[str, ...]
    trained: tuple[Stage, ...]
    classes: int

    def teachers_for(self, name: str) -> tuple[str, ...]:
        """The teachers, for a control that cannot do without.

        Raises:
            UserError: there are none.
        """
        if not self.teachers:
            raise UserError(
                f"controls: {name} needs teachers, and this run has none: choose some "
                "(teacher=ensemble3), or leave this control out"
            )
        return self.teachers


@runtime_checkable
class Control(Protocol):
    """What the nodes of ``controls`` make."""

    def stages(self, name: str, ground: Ground) -> tuple[Stage, ...]:
        """The stages of this control, named ``name`` or ``name/...``.

        Raises:
            UserError: the run has not what it needs.
        """
        ...


def control_stages(
    nodes: Mapping[str, Node], ground: Ground, allow: Sequence[str] = ()
) -> tuple[Stage, ...]:
    """The stages of all controls, ``control/NAME`` or ``control/NAME/...``, in order.

    Args:
        nodes: of the controls, by name.
        ground: what they are made from.
        allow: packages beside this project's that nodes may name.

    Raises:
        UserError: a node makes no control, or the run has not what a control needs.
    """
    found: list[Stage] = []
    for name, node in nodes.items():
        control = build(node, f"controls.{name}", allow)
        if not isinstance(control, Control):
            raise UserError(f"controls.{name}: expected a control, got {control!r}")
        found += control.stages(f"control/{name}", ground)
    return tuple(found)


class Alone:
    """The student without teachers.

    Args:
        strategy: how it learns, as a node.
    """

    def __init__(self, strategy: Node) -> None:
        self.strategy = strategy

    def stages(self, name: str, ground: Ground) -> tuple[Stage, ...]:
        """One stage."""
        return (replace(ground.alone, name=name, strategy=self.strategy),)


class Together:
    """The student under all teachers.

    Args:
        strategy: how it learns from them, as a node.
        ensemble: how they answer, as a partial node that is called with the frozen teachers and
            the files of their checkpoints; all of them, live, if not given.
    """

    def __init__(self, strategy: Node, ensemble: Node | None = None) -> None:
        self.strategy = strategy
        self.ensemble = ensemble

    def stages(self, name: str, ground: Ground) -> tuple[Stage, ...]:
        """One stage.

        Raises:
            UserError: there are no teachers.
        """
        teachers, strategy = ground.teachers_for(name), self.strategy
        stage = replace(ground.alone, name=name, teachers=teachers, strategy=strategy)
        return (replace(stage, ensemble=self.ensemble),)


class OneByOne:
    """The student under each of the teachers alone.

    With a single teacher, the strategy ``parallel`` and equal weights this is the student's own
    stage, which the store then has already.

    Args:
        strategy: how it learns from one, as a node. Where that lists layers for each teacher, those
            of the one teacher are taken.
    """

    def __init__(self, strategy: Node) -> None:
        self.strategy = strategy

    def stages(self, name: str, ground: Ground) -> tuple[Stage, ...]:
        """A stage for each teacher, ``name/0`` and so on.

        Raises:
            UserError: there are no teachers.
        """
        return tuple(
            replace(
                ground.alone,
                name=f"{name}/{number}",
                teachers=(teacher,),
                strategy=of_one(self.strategy, number),
            )
            for number, teacher in enumerate(ground.teachers_for(name))
        )


class Untrained:
    """The student under a network that nobody trained.

    It is like the first of the teachers that this run trains, in all classes of the data, or like
    the student where it trains none. Its weights are drawn from a seed of their own. A node that
    brings weights, of a pretrained network say, brings them here too.

    Args:
        strategy: how the student learns from it, as a node. Where that lists layers for each
            teacher, those of the first are taken; of a network like the student, the student's.
    """

    def __init__(self, strategy: Node) -> None:
        self.strategy = strategy

    def stages(self, name: str, ground: Ground) -> tuple[Stage, ...]:
        """The network as it is made, ``name/untrained``, and the student.

        Raises:
            UserError: no new network like the student can be made.
        """
        node, strategy = self._network(name, ground)
        untrained = replace(
            ground.alone,
            name=f"{name}/untrained",
            student=node,
            origin=None,
            epochs=0,
            seed=derived_seed(ground.alone.seed, "untrained"),
        )
        teachers = (untrained.name,)
        return untrained, replace(ground.alone, name=name, teachers=teachers, strategy=strategy)

    def _network(self, name: str, ground: Ground) -> tuple[Node, Node]:
        """The network, and how the student learns from it."""
        if not ground.trained:
            node = with_new_weights(ground.alone.student, f"controls: {name}")
            return node, at_own_layers(self.strategy)
        first = ground.trained[0]
        node = with_new_weights(first.student)
        if first.covered is not None:
            node = {**node, "classes": ground.classes}
        return node, of_one(self.strategy, ground.teachers.index(first.name))


def of_one(node: Any, number: int) -> Any:
    """A strategy for several teachers as one for a single one of them.

    Args:
        node: the strategy. Wherever an argument ``teachers`` in it holds a list for each teacher,
            such as the layers that are compared, only that of the one teacher stays.
        number: of the teacher.
    """
    if isinstance(node, list | tuple):
        return [of_one(part, number) for part in node]
    if not isinstance(node, Mapping):
        return node
    parts = {key: of_one(value, number) for key, value in node.items()}
    lists = parts.get("teachers")
    # Lists that are too few are reported by whoever is asked for the layers of that teacher.
    if isinstance(lists, list) and all(isinstance(each, list) for each in lists[: number + 1]):
        parts["teachers"] = lists[number : number + 1] or lists
    return parts


def at_own_layers(node: Any) -> Any:
    """A strategy for a teacher like the student: compared where the student is, layer by layer.

    Args:
        node: the strategy; wherever something in it has arguments ``student`` and ``teachers``,
            the latter becomes the former.
    """
    if isinstance(node, list | tuple):
        return [at_own_layers(part) for part in node]
    if not isinstance(node, Mapping):
        return node
    parts = {key: at_own_layers(value) for key, value in node.items()}
    if "teachers" in parts and "student" in parts:
        parts["teachers"] = parts["student"]
    return parts

"""Which networks may be assistants, and what they cost."""

from __future__ import annotations

import inspect
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ensemble_kd.build import Node, build, locate
from ensemble_kd.costs import multiply_adds
from ensemble_kd.errors import UserError
from ensemble_kd.export import constructor_of, count_parameters
from ensemble_kd.stage import Given
from ensemble_kd.teachers import Foreign, Translated

if TYPE_CHECKING:
    from ensemble_kd.plan import Plan

SIZES = 3
"""Candidates between the student and the teachers, where the user names none."""

FINEST = 100
"""Widths are scaled in hundredths of what they are."""

WIDEST = 100 * FINEST
"""A hundred times as wide."""

REFERENCE = "ensemble_kd.networks."
"""Where the networks are whose ``scale`` is a factor of their widths."""


@dataclass(frozen=True)
class Candidate:
    """A network that may be an assistant.

    Attributes:
        name: how it is reported, such as ``student x1.75``.
        parameters: number of them.
        multiply_adds: for one sample.
        node: makes it.
    """

    name: str
    parameters: int
    multiply_adds: int
    node: Node = field(compare=False)


class LeftOut(NamedTuple):
    """A network that is not tried, and why."""

    name: str
    reason: str


class Ends(NamedTuple):
    """The networks between whose sizes assistants are looked for.

    Attributes:
        student: number of parameters.
        multiply_adds: of the student, for one sample.
        teachers: numbers of parameters, by name.
        families: nodes of the reference networks among them, by name: these can be scaled.
    """

    student: int
    multiply_adds: int
    teachers: Mapping[str, int]
    families: Mapping[str, Node]

    @property
    def smallest(self) -> int:
        """Parameters of the smallest teacher."""
        return min(self.teachers.values())


def ends_of(plan: Plan) -> Ends:
    """The sizes of the student and of the teachers of a plan.

    Raises:
        UserError: the parameters of a teacher, or the student's products, cannot be counted, or
            the student is no smaller than the teachers.
    """
    stages = {stage.name: stage for stage in plan.stages}
    part = stages["student"].student
    with torch.random.fork_rng(devices=[]):
        student = part.fresh() if isinstance(part, Given) else build(part, "student", plan.allow)
    products = multiply_adds(student, _one_sample(plan))
    if products == 0:
        raise UserError(
            "strategy.assistants: expected a student whose multiply-adds can be counted for auto, "
            "got one of 0: name the assistants instead"
        )
    nodes: dict[str, Node | None] = {"student": part.node if isinstance(part, Given) else part}
    sizes = {}
    for name in plan.teachers:
        if name in plan.given:
            node, sizes[name] = _given(name, plan.given[name].network)
        else:
            node, sizes[name] = _trained(name, stages[name].student, plan.allow)
        nodes[name] = None if node is None else _in_classes(node, plan.classes)
    size = count_parameters(student)
    if size >= min(sizes.values()):
        name = min(sizes, key=lambda each: sizes[each])
        raise UserError(
            f"strategy.assistants: auto needs a student smaller than every teacher, and it has "
            f"{size:,} parameters, {name} {sizes[name]:,}"
        )
    families: dict[str, Node] = {}
    for name, each in nodes.items():
        if each is not None and _scalable(each, plan.allow) and each not in families.values():
            families[name] = each
    return Ends(size, products, sizes, families)


def candidates_between(ends: Ends, plan: Plan) -> list[tuple[str, Node]]:
    """Names and nodes of reference networks between the student and the smallest teacher.

    Their numbers of parameters divide the way from the student to the teacher into equal factors.
    Each is the student or a teacher, whichever has to be scaled by less for it: a little more than
    the student is a wider student, a little less than a teacher is a narrower teacher.

    Source: the best assistant of Mirzadeh et al. (arXiv 1902.03393) has an accuracy near the mean
    of the teacher's and the student's. Sizes with equal factors between them stand for accuracies
    with equal differences, which nobody knows beforehand.

    Raises:
        UserError: none of the networks can be scaled.
    """
    if not ends.families:
        raise UserError(
            "strategy.assistants: auto makes assistants from the reference networks among student "
            "and teachers, and their constructors are not known, or have no scale: name some "
            "networks in strategy.candidates"
        )
    steps = [step / (SIZES + 1) for step in range(1, SIZES + 1)]
    targets = [ends.student * (ends.smallest / ends.student) ** step for step in steps]
    found = {}
    for target in targets:
        factors = {
            name: _factor(node, name, target, plan.allow) for name, node in ends.families.items()
        }
        name = min(factors, key=lambda each: abs(math.log(factors[each])))
        node, factor = ends.families[name], factors[name]
        found[f"{name} x{factor:g}"] = _scaled(node, factor)
    return list(found.items())


def sized(name: str, node: Node, key: str, plan: Plan) -> Candidate:
    """A candidate, counted.

    Raises:
        UserError: it cannot be made.
    """
    with torch.random.fork_rng(devices=[]):
        network = build(node, key, plan.allow)
    if not isinstance(network, nn.Module):
        raise UserError(f"{key}: expected a network, got {network!r}")
    return Candidate(
        name, count_parameters(network), multiply_adds(network, _one_sample(plan)), node
    )


def inside(candidates: Sequence[Candidate], ends: Ends) -> tuple[list[Candidate], list[LeftOut]]:
    """Candidates strictly between student and teachers, smallest first, and the others.

    Raises:
        UserError: there is none.
    """
    between = (
        f"between the {ends.student:,} of the student and the {ends.smallest:,} of the smallest "
        "teacher"
    )
    fitting = [each for each in candidates if ends.student < each.parameters < ends.smallest]
    if not fitting:
        had = ", ".join(f"{each.name} ({each.parameters:,})" for each in candidates)
        raise UserError(
            f"strategy.candidates: expected networks with a number of parameters {between}, got "
            f"{had}"
        )
    left_out = [
        LeftOut(each.name, f"its {each.parameters:,} parameters are not {between}")
        for each in candidates
        if each not in fitting
    ]
    return sorted(fitting, key=lambda each: each.parameters), left_out


def _given(name: str, network: nn.Module) -> tuple[Node | None, int]:
    """The node, where it is known, and the parameters of a teacher that is there already."""
    if any(isinstance(part, Foreign) for part in network.modules()):
        raise UserError(
            f"strategy.assistants: auto needs the number of parameters of every teacher, and "
            f"{name} runs in another library: name the assistants instead"
        )
    own = network.network if isinstance(network, Translated) else network
    return constructor_of(own), count_parameters(own)


def _trained(name: str, part: Node | Given, allow: Sequence[str]) -> tuple[Node | None, int]:
    """The same of a teacher that the run trains."""
    if isinstance(part, Given):
        return part.node, count_parameters(part.fresh())
    return part, count_parameters(_made(part, name, allow))


def _in_classes(node: Node, classes: int) -> Node:
    """A teacher's node with the classes of the data, where it has others."""
    return {**node, "classes": classes} if "classes" in node else node


def _scalable(node: Node, allow: Sequence[str]) -> bool:
    if not node["_target_"].startswith(REFERENCE):
        return False
    return "scale" in inspect.signature(locate(node["_target_"], "student", allow)).parameters


def _scaled(node: Node, factor: float) -> Node:
    return {**node, "scale": round(node.get("scale", 1.0) * factor, 6)}


def _factor(node: Node, name: str, target: float, allow: Sequence[str]) -> float:
    """The factor of the widths with which a network comes nearest to a number of parameters."""

    def parameters(hundredths: int) -> int:
        scaled = _scaled(node, hundredths / FINEST)
        return count_parameters(_made(scaled, name, allow))

    widest = FINEST
    while parameters(widest) < target and widest < WIDEST:
        widest *= 2
    enough = bisect_left(range(1, widest), target, key=parameters) + 1
    nearest = min(
        (max(1, enough - 1), enough), key=lambda each: abs(math.log(parameters(each) / target))
    )
    return nearest / FINEST


def _made(node: Node, key: str, allow: Sequence[str]) -> nn.Module:
    """A network to be counted: one that can be scaled without its weights."""
    device = "meta" if _scalable(node, allow) else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(device):
        network: nn.Module = build(node, key, allow)
    return network


def _one_sample(plan: Plan) -> Any:
    inputs = next(iter(plan.data.val_dataloader())).inputs
    return pytree.tree_map(lambda part: part[:1] if isinstance(part, Tensor) else part, inputs)

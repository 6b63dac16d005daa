"""``python -m ensemble_kd.layers student=... teacher=...``: what features can be named.

Lists the layers of the student and of each different teacher with the shape of what they give, and
suggests which to compare: the last layer of each size, from the deepest on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from ensemble_kd.command_line import explain
from ensemble_kd.config import compose
from ensemble_kd.errors import UserError
from ensemble_kd.networks.prepared import inside
from ensemble_kd.networks.shapes import layer_shapes
from ensemble_kd.plan import make_plan
from ensemble_kd.report.console import open_console, show_table, start_table
from ensemble_kd.teachers import Foreign
from ensemble_kd.training import assemble
from ensemble_kd.types import Tokens


class Layer(NamedTuple):
    """A module that gives a tensor.

    Attributes:
        path: its name in a configuration.
        kind: its class.
        shape: of what it gives for one sample.
    """

    path: str
    kind: str
    shape: tuple[int, ...]


def main() -> None:
    """The command line; exit status 2 for a user's mistake."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        show(sys.argv[1:])
    except (HydraException, OmegaConfBaseException) as failure:
        print(f"error: {explain(failure, overrides=sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)


def show(overrides: Sequence[str]) -> None:
    """Print the layers of the networks that a command line means.

    Args:
        overrides: as for a run.

    Raises:
        UserError: something in them is wrong.
    """
    plan = make_plan(compose(overrides))
    stages = {stage.name: stage for stage in plan.stages}
    networks = {"student": assemble(stages["student"], plan.allow).student}
    for name in plan.teachers:
        given = plan.given.get(name)
        network = given.network if given else assemble(stages[name], plan.allow).student
        if isinstance(network, Foreign):
            print(f"{name}: no network of PyTorch, and no layers to name")
        else:
            networks[name] = network
    served = next(iter(plan.data.val_dataloader())).inputs
    samples = served if isinstance(served, Tokens) else plan.data.inputs
    listed = {name: layers_of(network, samples) for name, network in networks.items()}
    shown: list[list[Layer]] = []
    console = open_console()
    for name, layers in listed.items():
        if layers in shown:
            continue
        shown.append(layers)
        same = [other for other, others in listed.items() if others == layers]
        table = start_table(("layer", "module", "shape"), plain=not console.is_terminal)
        for layer in layers:
            table.add_row(layer.path, layer.kind, " x ".join(map(str, layer.shape)))
        show_table(console, f"{', '.join(same)}: {type(networks[name]).__name__}", table)
    for name in (name for name in plan.teachers if name in networks):
        pairs = suggested(listed["student"], listed[name])
        own = ",".join(student.path for student, _ in pairs)
        other = ",".join(teacher.path for _, teacher in pairs)
        print(f"student and {name}: student_layers=[{own}] teacher_layers=[{other}]")


def layers_of(network: nn.Module, inputs: Sequence[int] | Tokens) -> list[Layer]:
    """The layers of a network in the order in which they give something."""
    modules = dict(inside(network).named_modules())
    return [
        Layer(path, type(modules[path]).__name__, shape[1:])
        for path, shape in layer_shapes(network, inputs)
    ]


def suggested(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Layers to compare: the ends of the stages, paired from the deepest on, and the last vectors.

    A stage ends where the height and width of the maps change for the last time; a map of a single
    place is no map. The last vector is what the classifier sees.
    """
    own, other = _stage_ends(student), _stage_ends(teacher)
    count = min(len(own), len(other))
    pairs = list(zip(own[len(own) - count :], other[len(other) - count :], strict=True))
    return [*pairs, *zip(_last_vector(student), _last_vector(teacher), strict=False)]


def _stage_ends(layers: Sequence[Layer]) -> list[Layer]:
    """The last layer of each height and width."""
    maps = [layer for layer in layers if len(layer.shape) == 3 and layer.shape[1:] != (1, 1)]
    return list({layer.shape[1:]: layer for layer in maps}.values())


def _last_vector(layers: Sequence[Layer]) -> list[Layer]:
    """The last vector before the logits, in a list that is empty when there is none."""
    return [layer for layer in layers[:-1] if len(layer.shape) == 1][-1:]


if __name__ == "__main__":
    main()

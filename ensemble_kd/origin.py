"""Where a student starts: from chosen layers of a teacher, or of a network trained before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ensemble_kd.artefact import read_artefact
from ensemble_kd.errors import UserError
from ensemble_kd.networks.layer_map import from_layers
from ensemble_kd.networks.prepared import Prepared, inside
from ensemble_kd.stage import Stage
from ensemble_kd.taught import Taught
from ensemble_kd.teachers import Translated
from ensemble_kd.teachers.sources.tokenizers import settings_in, settings_of

INITIAL = "initial"
"""Name of a network that teaches nobody and from which the student starts."""

KEYS = ("teacher", "artefact", "layers")


class Origin(NamedTuple):
    """A network from whose layers another one starts.

    Attributes:
        name: of a teacher, or ``INITIAL``.
        layers: for each layer of the student, the one of the network; None for the same ones.
    """

    name: str
    layers: tuple[int, ...] | None


def open_origin(
    asked: Any, teachers: Sequence[str], data: Any, allow: Sequence[str]
) -> tuple[Origin | None, dict[str, Taught]]:
    """What ``initial`` in the configuration means.

    Args:
        asked: null, ``{teacher: NUMBER, layers: [...]}`` or ``{artefact: FOLDER, layers: [...]}``.
        teachers: names of the teachers.
        data: the opened data.
        allow: packages beside this project's that nodes may name.

    Returns:
        The origin, and the network if it is none of the teachers.

    Raises:
        UserError: it is something else, or is not there.
    """
    if asked is None:
        return None, {}
    if (
        not isinstance(asked, Mapping)
        or set(asked) - set(KEYS)
        or ("teacher" in asked) == ("artefact" in asked)
    ):
        raise UserError(
            "initial: expected {teacher: NUMBER, layers: [...]} or {artefact: FOLDER, layers: "
            f"[...]}}, got {asked!r}"
        )
    layers = asked.get("layers")
    if layers is not None and not (
        isinstance(layers, list) and layers and all(type(each) is int for each in layers)
    ):
        raise UserError(f"initial.layers: expected numbers of layers or null, got {layers!r}")
    chosen = None if layers is None else tuple(layers)
    if "artefact" in asked:
        artefact = read_artefact(Path(str(asked["artefact"])).expanduser())
        _check_tokens(artefact.folder, getattr(data, "tokenizer", None))
        taught = Taught(artefact.network(allow), artefact.identity, artefact.folder)
        return Origin(INITIAL, chosen), {INITIAL: taught}
    number = asked["teacher"]
    if type(number) is not int or not 0 <= number < len(teachers):
        raise UserError(
            f"initial.teacher: expected the number of one of {len(teachers)} teachers, "
            f"got {number!r}"
        )
    return Origin(teachers[number], chosen), {}


def start(
    student: nn.Module, origin: Origin, networks: Mapping[str, nn.Module], stage: str
) -> None:
    """Fill a student with the layers from which it starts.

    Raises:
        UserError: they do not fit.
    """
    network = networks[origin.name]
    if isinstance(network, Translated):
        network = network.network
    if isinstance(network, Prepared) and network.own_tokens:
        raise UserError(
            f"initial: {origin.name} reads with a tokenizer of its own, and its embeddings are "
            "those of other tokens: take it for the data too, with data.tokenizer"
        )
    network = inside(network)
    try:
        from_layers(student, network, origin.layers)
    except (ValueError, UserError) as failure:
        raise UserError(f"initial: stage {stage}: {failure}") from failure


def starting_from(origin: Origin | None, stage: Stage, last: Stage) -> Stage:
    """A stage that starts where the user says, if it trains the student from the beginning.

    Args:
        origin: from ``open_origin``.
        stage: one of those of the strategy.
        last: that of the student, as the configuration describes it.
    """
    if stage.student is not last.student or stage.initial is not None:
        return stage
    return replace(stage, origin=origin)


def _check_tokens(folder: Path, tokenizer: Any) -> None:
    """The embeddings of one tokenizer's tokens are of no use to another one's."""
    if tokenizer is not None and settings_in(folder) != settings_of(tokenizer):
        raise UserError(
            f"initial.artefact: expected a network that reads with the tokenizer of the data, got "
            f"another one or none in {folder}: take it for the data too, with "
            "data.tokenizer={_target_: ensemble_kd.data.Pretrained, path: FOLDER}"
        )

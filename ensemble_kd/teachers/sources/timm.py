"""A network of timm, with weights from a file, a folder or the Hugging Face hub."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from torch import nn

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import digest_of, offered, one_line
from ensemble_kd.networks.timm import create, library
from ensemble_kd.plain_files import read_json
from ensemble_kd.state_dicts import fill, read_weights
from ensemble_kd.teachers.sources.hub import WEIGHTS, files_in, folder_of
from ensemble_kd.teachers.sources.preprocess import (
    Interpolation,
    Preprocess,
    known_channels,
    prepared,
    seen,
)
from ensemble_kd.teachers.sources.source import Loaded, Source, Told

HUB = "hf-hub:"
"""Begins the names that timm gives to repositories on the hub."""


@dataclass(frozen=True)
class Timm(Source):
    """A network by its name in timm and a file of weights, or from a repository on the hub.

    Images are resized, cropped and normalised as timm's own configuration of the network says.

    Args:
        name: of the network, such as ``resnet50``; or a folder with ``config.json`` and
            ``model.safetensors`` as timm writes them for the hub, or ``hf-hub:`` and the id of
            a repository there.
        weights: safetensors or a state dict; None for a folder or a repository.
        revision: on the hub, the commit, 40 hexadecimal digits.
        arguments: of ``timm.create_model``, such as ``num_classes``, which is that of the data by
            default; none by which it reads files.
        key: under which the state dict lies in the file of weights.
        prefix: before every name in it.
        preprocess: what it makes of the images, in place of its own.
    """

    name: str
    weights: str | None = None
    revision: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    prefix: str = ""
    preprocess: Preprocess | None = None

    def load(self, told: Told) -> Loaded:
        """The network; its classes are those of ``label_names``, where it was published with it."""
        timm = library()
        asked = {"num_classes": len(told.names), **self.arguments}
        names = None
        if self.weights is not None:
            network = create(timm, self.name, asked)
            weights, files = self.weights, [offered(self.weights, "weights", any_bytes=True)]
        else:
            folder = folder_of(self.name.removeprefix(HUB), self.revision, "timm")
            files = files_in(folder)
            network, names = _published(timm, folder, dict(self.arguments))
            weights = str(folder / WEIGHTS)
        fill(network, read_weights(weights, self.key, self.prefix), weights)
        preprocess = self.preprocess or own_preprocess(timm, network)
        settings = {
            "name": self.name if self.weights is not None else None,
            "arguments": asked,
            "key": self.key,
            "prefix": self.prefix,
            "version": timm.__version__,
            **seen(preprocess, told),
        }
        digest = digest_of("timm", files, settings)
        return Loaded(prepared(network, preprocess, told).eval(), digest, names=names)


def own_preprocess(timm: Any, network: nn.Module) -> Preprocess:
    """What timm's configuration of a network says of its images.

    Raises:
        UserError: it says something that is not known here.
    """
    said = timm.data.resolve_model_data_config(network)
    try:
        return _as_preprocess(said)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError) as failure:
        raise UserError(
            f"timm: expected input_size (channels, height, width), crop_pct, mean and std of "
            f"images, got {one_line(ValueError(said))}: {one_line(failure)}: say it with "
            "preprocess: {...}"
        ) from failure


def _as_preprocess(said: Mapping[str, Any]) -> Preprocess:
    channels, height, width = map(int, said["input_size"])
    mode, interpolation = said["crop_mode"], said["interpolation"]
    # Of images that are not square the library keeps the ratio in a way of its own.
    if mode != "squash" and not (mode == "center" and height == width):
        raise UserError(
            f"timm: expected square images with the crop mode center, or squash, got {height} x "
            f"{width} with {mode!r}: say it with preprocess: {{...}}"
        )
    if interpolation not in get_args(Interpolation):
        raise UserError(
            f"timm: expected one of {', '.join(get_args(Interpolation))} as interpolation, got "
            f"{interpolation!r}: say it with preprocess: {{...}}"
        )
    share = float(said["crop_pct"])
    sides = (math.floor(height / share), math.floor(width / share))
    return Preprocess(
        size=sides[0] if mode == "center" else sides,
        crop=(height, width),
        interpolation=interpolation,
        channels=known_channels(channels),
        mean=tuple(said["mean"]),
        std=tuple(said["std"]),
    )


def _published(
    timm: Any, folder: Path, arguments: dict[str, Any]
) -> tuple[nn.Module, tuple[str, ...] | None]:
    """A network as timm publishes it, without weights, and the names of its classes."""
    file = folder / "config.json"
    try:
        said = read_json(file)
        architecture, classes = str(said["architecture"]), int(said["num_classes"])
        own, pretrained = dict(said.get("model_args") or {}), dict(said["pretrained_cfg"])
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise UserError(
            f"{file}: expected a configuration of timm with architecture, num_classes and "
            f"pretrained_cfg: {one_line(failure)}"
        ) from failure
    asked = {"num_classes": classes, **own, **arguments}
    names = said.get("label_names") or pretrained.get("label_names")
    return create(timm, architecture, asked, pretrained), _texts(names, file)


def _texts(names: Any, file: Path) -> tuple[str, ...] | None:
    if not names:
        return None
    if not isinstance(names, list):
        raise UserError(f"{file}: label_names: expected a list, got {type(names).__name__}")
    return tuple(map(str, names))

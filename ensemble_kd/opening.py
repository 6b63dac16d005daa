"""Opening the data of a run, and asking it what the configuration needs to know."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningDataModule

from ensemble_kd.build import build
from ensemble_kd.config import plain
from ensemble_kd.data import Adapted
from ensemble_kd.errors import UserError
from ensemble_kd.types import labelled

TELLS = ("inputs", "classes", "digest", "sizes", "labelled_only", "views")
"""What data tells of itself, or takes; a module without these is read through ``Adapted``."""

FOUND = ("inputs", "classes", "vocabulary", "per_token")
"""Keys of ``data`` that are what the data says and no arguments of it."""


def open_data(config: DictConfig, data: LightningDataModule | None, allow: Sequence[str]) -> Any:
    """The data of a run; ``config.data.inputs`` and ``config.data.classes`` are filled in.

    Args:
        config: the composed configuration.
        data: a module that exists already, in place of ``config.data``; it is not changed.
        allow: packages beside this project's that nodes may name.

    Raises:
        UserError: it cannot be opened, has no batches, or is not as the configuration says.
    """
    if data is None:
        node = plain(config.data, "data")
        said = {key: value for key, value in node.items() if key not in FOUND}
        data = build(said, "data", allow)
    if not isinstance(data, LightningDataModule):
        raise UserError(f"data: expected a LightningDataModule, got {data!r}")
    # A copy: what stages ask of the data is not to be seen by whoever handed it over.
    opened: Any = copy.copy(data) if _tells(data) else Adapted(data)
    opened.labelled_only = False
    _fill_in(config, opened)
    _check_length(opened)
    return opened


def _tells(data: LightningDataModule) -> bool:
    # Looked up without asking: a property may read all of the data.
    missing = object()
    return all(inspect.getattr_static(data, name, missing) is not missing for name in TELLS)


def _check_length(data: Any) -> None:
    """Schedules and progress need to know how many batches there will be."""
    for name in ("train_dataloader", "val_dataloader"):
        try:
            batches = len(getattr(data, name)())
        except TypeError as failure:
            raise UserError(
                f"data: expected a {name} with a length, got one that has none, as those of "
                "iterable data sets: give it a length, or use a data set with samples by number"
            ) from failure
        if batches < 1:
            raise UserError(f"data: expected at least one batch of {name}, got none")


def _fill_in(config: DictConfig, data: Any) -> None:
    """Networks take their sizes from ``data.inputs`` and ``data.classes``: what the data says.

    Those that read texts take ``data.vocabulary`` and ``data.per_token`` as well.
    """
    found: dict[str, Any] = {
        "inputs": [int(size) for size in data.inputs],
        "classes": int(data.classes),
    }
    if getattr(data, "tokenizer", None) is not None:
        found |= {"vocabulary": int(data.vocabulary), "per_token": bool(data.per_token)}
    OmegaConf.set_struct(config, False)
    for key, value in found.items():
        said = plain(config.data.get(key), f"data.{key}")
        if said is not None and said != value:
            raise UserError(f"data.{key}: expected {value} as the data says, got {said}")
        config.data[key] = value
    OmegaConf.set_struct(config, True)


def expect_labels(data: Any, key: str) -> None:
    """See that the validation split has labels, where something is chosen by its accuracy.

    Args:
        data: opened.
        key: of the setting that chooses.

    Raises:
        UserError: it has none.
    """
    if not any(bool(labelled(batch).any()) for batch in data.val_dataloader()):
        raise UserError(f"{key}: expected labels in the validation split to choose by, got none")

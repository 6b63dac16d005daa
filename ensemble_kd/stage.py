"""A stage: one student trained under some frozen teachers. A value, with a digest."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ensemble_kd.build import Node
from ensemble_kd.errors import UserError
from ensemble_kd.fingerprint import code_digest, foreign_packages, module_digest
from ensemble_kd.teachers.label_space import Covered
from ensemble_kd.version import __version__

if TYPE_CHECKING:
    from ensemble_kd.origin import Origin

TRAINING_CODE = (
    "asking",
    "cache",
    "checkpoint",
    "data",
    "distributed",
    "functional",
    "networks",
    "objectives",
    "strategies",
    "teachers",
    "weightings",
    "build.py",
    "callbacks.py",
    "clipping.py",
    "descent.py",
    "engine.py",
    "finite.py",
    "fitting.py",
    "means.py",
    "module.py",
    "opening.py",
    "origin.py",
    "precision.py",
    "rehearsal.py",
    "schedules.py",
    "stage.py",
    "streams.py",
    "taught.py",
    "training.py",
    "types.py",
)
"""What of this package determines trained weights; a change here makes every stage another one."""

OPTIONAL = ("transformers", "tokenizers", "timm")
"""Packages that need not be there, and whose code a network may be made of."""


class Given:
    """A module that was handed over as an object, where a node would stand in a config.

    Args:
        module: it is copied at once and never changed.
        node: makes a module like it from new weights; None when that is not known.
    """

    def __init__(self, module: nn.Module, node: Node | None = None) -> None:
        self._module = copy.deepcopy(module)
        self.digest = module_digest(module)
        self.node = node

    def fresh(self) -> nn.Module:
        """A copy of the module as it was handed over."""
        return copy.deepcopy(self._module)


@dataclass(frozen=True)
class Stage:
    """One student, trained under some frozen teachers.

    Attributes:
        name: how it is reported, and the name under which later stages call it their teacher.
        student: the network, as a node or as a given module.
        teachers: names of the stages that teach it, in the order of the weights.
        strategy: who learns from whom.
        optimizers: how each player descends; ``default`` serves those that are not named.
        trainer: the node of the trainer.
        data: digest of the data.
        labelled_only: the batches hold labelled samples only.
        epochs: passes over the training split; 0 for a network that is wanted as it is made.
        select: ``last`` weights, or those of the epoch with the ``best`` validation accuracy.
        seed: of the initial weights and of everything drawn while training.
        ensemble: how the teachers answer, as a partial node; None for all of them, live.
        initial: name of an earlier stage from whose weights the student starts.
        origin: a network, by name, from whose layers the student starts as far as they fit, and
            which of them; None for new weights.
        snapshots: keep the weights of every epoch in the artefact.
        views: augmentations of each sample in a training batch.
        covered: of a teacher with classes of its own, the classes of the data that each of its
            outputs covers; None where they are the same.
        inexact: ways in which teachers may answer that are not exact, such as a smaller format.
        compiled: the networks that learn run through ``torch.compile``, which rounds otherwise.
        hears: whether the strategy asks its teachers about batches; it may use them in another way.
            This decides nothing about the weights.
    """

    name: str
    student: Node | Given
    teachers: tuple[str, ...]
    strategy: Node | Given
    optimizers: Node
    trainer: Node
    data: str
    labelled_only: bool
    epochs: int
    select: str
    seed: int
    ensemble: Node | None = None
    initial: str | None = None
    origin: Origin | None = None
    snapshots: bool = False
    views: int = 1
    covered: Covered | None = None
    inexact: tuple[str, ...] = ()
    compiled: bool = False
    hears: bool = True

    def reported(self, predictor: str) -> str:
        """The name under which a run reports one of this stage's predictors."""
        if self.name == "student":
            return predictor
        return self.name if predictor == "student" else f"{self.name}/{predictor}"

    def determinants(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Everything that the trained weights depend on, as plain values; not the name.

        Args:
            digests: of the stages before this one, by name.
        """
        return {
            "student": _plain(self.student),
            "teachers": [digests[name] for name in self.teachers],
            "strategy": _plain(self.strategy),
            "optimizers": dict(self.optimizers),
            "trainer": dict(self.trainer),
            "data": self.data,
            "labelled_only": self.labelled_only,
            "epochs": self.epochs,
            "select": self.select,
            "seed": self.seed,
            "ensemble": None if self.ensemble is None else dict(self.ensemble),
            "initial": None if self.initial is None else digests[self.initial],
            "origin": self.origin and [digests[self.origin.name], self.origin.layers],
            "snapshots": self.snapshots,
            "views": self.views,
            "covered": self.covered,
            "inexact": list(self.inexact) if self.teachers else [],
            "compiled": self.compiled,
            "code": training_code_digest(),
            "foreign_code": {name: code_digest(name) for name in sorted(self._foreign())},
            "versions": _versions(),
        }

    def _foreign(self) -> set[str]:
        """Packages of the user's whose code takes part."""
        parts = [_plain(self.student), _plain(self.strategy), self.optimizers, self.trainer]
        return foreign_packages([*parts, self.ensemble])

    def digest(self, digests: Mapping[str, str]) -> str:
        """The key of this stage's artefact: sha256 of its determinants, in hex."""
        written = json.dumps(self.determinants(digests), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(written.encode()).hexdigest()


def with_new_weights(part: Node | Given, who: str = "the strategy") -> Node:
    """A node that makes a network like this one, from new weights.

    Args:
        part: the network.
        who: asks for it, for the message.

    Raises:
        UserError: the network was given as an object whose constructor is not known.
    """
    if not isinstance(part, Given):
        return part
    if part.node is None:
        raise UserError(
            f"student: {who} makes networks like it, from new weights, and it was given as "
            "an object whose constructor is not known: keep each argument of the constructor in "
            "an attribute of the same name, or give the strategy as an object"
        )
    return part.node


def derived_seed(seed: int, name: str) -> int:
    """A seed for a network of its own, from the seed of the run; 31 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1


def _plain(part: Node | Given) -> Any:
    return {"given": part.digest} if isinstance(part, Given) else dict(part)


@cache
def training_code_digest() -> str:
    """sha256 over the source files that determine trained weights, in hex."""
    package = Path(__file__).parent
    files = [
        file
        for name in TRAINING_CODE
        for file in (sorted((package / name).rglob("*.py")) or [package / name])
    ]
    said = hashlib.sha256()
    for file in files:
        said.update(file.relative_to(package).as_posix().encode())
        said.update(file.read_bytes())
    return said.hexdigest()


def _versions() -> dict[str, str]:
    said = {"ensemble-kd": __version__}
    for name in ("torch", "pytorch-lightning", "torchmetrics", "numpy", *OPTIONAL):
        with suppress(PackageNotFoundError):
            said[name] = version(name)
    return said

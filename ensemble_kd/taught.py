"""Teachers that are there before a run: opened, and put into the classes of the data."""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ensemble_kd.build import Node, build, locate
from ensemble_kd.errors import UserError
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.teachers import Covered, covered, translated
from ensemble_kd.teachers.sources import Source, Told
from ensemble_kd.teachers.sources.source import Names


@dataclass(frozen=True)
class Taught:
    """A teacher that is there already.

    Attributes:
        network: the teacher.
        digest: of its artefact, or of its weights when it was handed over as an object.
        folder: the artefact, when there is one.
    """

    network: nn.Module
    digest: str
    folder: Path | None = None


def is_source(node: Node, key: str, allow: Sequence[str]) -> bool:
    """Whether a node says where a teacher comes from, and not which network to train.

    Raises:
        UserError: it is no node, or names no class that it may name.
    """
    if not isinstance(node, Mapping):
        raise UserError(f"{key}: expected networks and sources of teachers, got {node!r}")
    kind = locate(node.get("_target_"), key, allow)
    return inspect.isclass(kind) and issubclass(kind, Source)


def told(data: Any, allow: Sequence[str]) -> Told:
    """What a source is told of opened data."""
    return Told(
        inputs=tuple(data.inputs),
        names=class_names(data),
        mean=_scale(getattr(data, "mean", None)),
        std=_scale(getattr(data, "std", None)),
        tokenizer=getattr(data, "tokenizer", None),
        per_token=getattr(data, "per_token", False),
        identities=getattr(data, "identities", None),
        allow=tuple(allow),
    )


def open_teacher(
    node: Node, name: str, data: Any, classes: Covered | None, allow: Sequence[str]
) -> Taught:
    """A teacher from where it comes, answering in the classes of the data.

    Args:
        node: of its source.
        name: of the teacher, for messages.
        data: the opened data.
        classes: what its outputs mean, where the user said it; else its own names say it, or there
            are as many as in the data, in the same order.
        allow: packages beside this project's that nodes may name.

    Raises:
        UserError: it cannot be opened, or the order of its classes is not known.
    """
    source: Source = build(node, name, allow)
    known = told(data, allow)
    try:
        loaded = source.load(known)
        if classes is None and loaded.names is not None:
            classes = _in_order(loaded.names, known.names)
    except UserError as mistake:
        raise UserError(f"{name}: {mistake}") from mistake
    except Exception as failure:  # files of strangers make libraries fail in many ways
        reason = textwrap.shorten(f"{type(failure).__name__}: {failure}", 300, placeholder=" ...")
        raise UserError(f"{name}: it cannot be opened: {reason}") from failure
    if isinstance(loaded.network, Prepared) and known.tokenizer is None and known.mean is None:
        raise UserError(
            f"{name}: it prepares images in its own way, and the data does not say how it "
            "standardises them: give it attributes mean and std, 0 and 1 for pixels in [0, 1]"
        )
    network = translated(loaded.network, classes, data.classes)
    return Taught(network, _with_classes(loaded.digest, classes), loaded.folder)


def class_names(data: Any) -> tuple[str, ...]:
    """Names of the classes of opened data: their numbers where it has none."""
    return tuple(getattr(data, "names", None) or map(str, range(data.classes)))


def classes_apart(node: Node, data: Any, name: str) -> tuple[Node, Covered | None]:
    """A teacher's node without the names of its classes, and what these mean in the data.

    Raises:
        UserError: they are not classes of the data, or ambiguous.
    """
    classes = node.get("classes")
    if classes is None or isinstance(classes, int):
        return node, None
    if not isinstance(classes, list):
        raise UserError(f"{name}: classes: expected a list of classes, got {classes!r}")
    try:
        found = covered(classes, class_names(data))
    except ValueError as failure:
        raise UserError(f"{name}: {failure}") from failure
    return {key: value for key, value in node.items() if key != "classes"}, found


def _in_order(own: Names, names: Sequence[str]) -> Covered | None:
    """What outputs mean that have names of their own; None where they are those of the data."""
    if own == tuple(names):
        return None
    if any(not isinstance(name, str) for name in own):
        # What the teacher learned was said by the user, in classes of such data.
        try:
            return covered(own, names)
        except ValueError as failure:
            raise UserError(str(failure)) from failure
    if len(own) != len(names):
        raise UserError(
            f"expected {len(names)} classes as in the data, got {len(own)} "
            f"({_few(own)}): say with classes: which of the data each of them is, null for none"
        )
    if sorted(map(str, own)) != sorted(names) or len(set(own)) < len(own):
        raise UserError(
            f"the order of its classes is unknown: expected {_few(names)} as in the data, "
            f"got {_few(own)}: say with classes: which of the data each of them is"
        )
    return covered(own, names)


def _few(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:8])) + (" ..." if len(names) > 8 else "")


def _with_classes(digest: str, classes: Covered | None) -> str:
    """The digest of a teacher with classes of its own: what it says depends on them as well."""
    if classes is None:
        return digest
    return hashlib.sha256(f"{digest} {classes}".encode()).hexdigest()


def _scale(scale: Any) -> float | tuple[float, ...] | None:
    if scale is None or isinstance(scale, int | float):
        return scale
    return tuple(float(each) for each in scale)

"""A network that this project trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble_kd.artefact import read_artefact
from ensemble_kd.given_files import digest_of
from ensemble_kd.teachers.sources.preprocess import Preprocess, prepared, seen
from ensemble_kd.teachers.sources.retokenised import with_own_tokens
from ensemble_kd.teachers.sources.source import Loaded, Names, Source, Told


@dataclass(frozen=True)
class Artefact(Source):
    """The folder of a trained network; its files are held against the digests that it records.

    One that was trained on texts reads with the tokenizer that lies beside it.

    Args:
        path: an artefact folder, such as ``student`` in a run folder.
        preprocess: what it makes of the images; None for one that sees what the student sees.
    """

    path: str
    preprocess: Preprocess | None = None

    def load(self, told: Told) -> Loaded:
        """The delivered network; its classes are those of the data on which it was trained."""
        held = read_artefact(Path(self.path).expanduser())
        network = prepared(held.network(told.allow), self.preprocess, told)
        if told.tokenizer is not None:
            network = with_own_tokens(network, held.folder, told)
        digest = held.identity
        if self.preprocess is not None:
            digest = digest_of(digest, [], seen(self.preprocess, told))
        return Loaded(network.eval(), digest, held.folder, _names(held.provenance))


def _names(provenance: Mapping[str, Any]) -> Names | None:
    """Of the classes; None where nothing is said of them, or they have their numbers only."""
    said = provenance.get("classes")
    if not isinstance(said, list) or said == [str(number) for number in range(len(said))]:
        return None
    found = tuple(tuple(name) if isinstance(name, list) else name for name in said)
    return found if all(name is None or isinstance(name, str | tuple) for name in found) else None

"""An artefact: a folder that holds a trained network and all that says where it came from.

``weights.safetensors`` (the delivered network), ``network.yaml`` (its constructor node),
``provenance.json`` (what determined it, its parents, versions, the digests of the other files),
and, where a strategy trains more than the delivered network, ``companions.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ensemble_kd.build import Node, build, check_network
from ensemble_kd.errors import UserError, concealed
from ensemble_kd.files import file_digest
from ensemble_kd.fingerprint import code_digest, foreign_packages
from ensemble_kd.given_files import pickled_hint
from ensemble_kd.paths import looked_up
from ensemble_kd.plain_files import read_json, read_yaml

WEIGHTS = "weights.safetensors"
NETWORK = "network.yaml"
PROVENANCE = "provenance.json"
COMPANIONS = "companions.safetensors"


@dataclass(frozen=True)
class Artefact:
    """A folder whose files were held against the digests that it records.

    Attributes:
        folder: where it lies.
        provenance: what ``provenance.json`` says.
    """

    folder: Path
    provenance: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The key of the artefact: the digest of all that determined it, in hex."""
        return str(self.provenance["digest"])

    def network(self, allow: Sequence[str] = (), network: nn.Module | None = None) -> nn.Module:
        """The delivered network, in eval mode.

        Args:
            allow: packages beside this project's whose classes the constructor node may name.
            network: the network to fill, for one whose constructor is not known.

        Raises:
            UserError: no constructor is known and none was given, or the weights do not fit.
        """
        if network is None:
            node = self._node()
            if not isinstance(node, dict) or node.get("_target_") is None:
                raise UserError(
                    f"{self.folder / NETWORK}: the network was given as an object whose constructor"
                    " is not known: call load(folder, network=...) with one like it"
                )
            check_network(node, str(self.folder / NETWORK), allow)
            network = build(node, str(self.folder / NETWORK), allow)
        if not isinstance(network, nn.Module):
            raise UserError(f"{self.folder / NETWORK}: expected a network, got {network!r}")
        self.fill(network, WEIGHTS)
        return network.eval()

    def fill(self, module: nn.Module, file: str) -> None:
        """Load the weights of one of the files into a module.

        Raises:
            UserError: keys or shapes do not fit.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        try:
            missing, unexpected = load_model(module, self.folder / file, strict=False)
        except (RuntimeError, SafetensorError, OSError, ValueError, KeyError) as failure:
            reason = textwrap.shorten(str(failure), 300, placeholder=" ...")
            raise UserError(
                f"{self.folder / file}: the weights do not fit: {reason}"
                f"{pickled_hint(self.folder / file)}"
            ) from failure
        if missing or unexpected:
            raise UserError(
                f"{self.folder / file}: the weights do not fit: "
                f"missing {sorted(missing)}, unexpected {sorted(unexpected)}"
            )

    @property
    def identity(self) -> str:
        """A digest of what the files hold, in hex, for an artefact that comes from elsewhere.

        ``digest`` is what its maker wrote down; two artefacts may claim the same one. Where the
        network is of a class of the user's, its code decides what it says, too.
        """
        code = {name: code_digest(name) for name in sorted(foreign_packages(self._node()))}
        files = sorted(self.provenance["files"].items())
        said = json.dumps([self.digest, files, *([code] if code else [])])
        return hashlib.sha256(said.encode()).hexdigest()

    def _node(self) -> Any:
        """How the network can be constructed again.

        Raises:
            UserError: the file cannot be read.
        """
        return read_yaml(self.folder / NETWORK)


def write_artefact(
    folder: Path,
    network: nn.Module,
    node: Node | None,
    provenance: Mapping[str, Any],
    companions: nn.Module | None = None,
) -> Artefact:
    """Write the files of an artefact into an existing folder.

    Args:
        folder: the folder; whoever calls makes it appear under its final name when it is whole.
        network: the delivered network.
        node: its constructor, None when it is not known.
        provenance: what is recorded beside ``schema`` and the digests of the files.
        companions: what else the strategy trained.
    """
    from omegaconf import OmegaConf
    from safetensors.torch import save_model

    save_model(network, str(folder / WEIGHTS))
    described = dict(node) if node is not None else {"_target_": None, "class": _path(network)}
    OmegaConf.save(OmegaConf.create(described), folder / NETWORK)
    if companions is not None:
        save_model(companions, str(folder / COMPANIONS))
    # Of an attempt that was cut off; it cannot hold its own digest.
    (folder / PROVENANCE).unlink(missing_ok=True)
    present = (path for path in sorted(folder.iterdir()) if path.is_file())
    files = {path.name: file_digest(path) for path in present}
    whole = {"schema": 1, **provenance, "files": files}
    (folder / PROVENANCE).write_text(concealed(json.dumps(whole, indent=2)) + "\n")
    return Artefact(folder, whole)


def read_artefact(folder: Path) -> Artefact:
    """Open an artefact and hold its files against their digests.

    Raises:
        UserError: not a folder of this project, a file is missing, was changed or leads elsewhere.
    """
    path = folder / PROVENANCE
    present = _own_files(folder)
    if PROVENANCE not in present:
        raise UserError(f"{folder}: expected an artefact folder with {PROVENANCE}, found none")
    try:
        provenance = read_json(path)
        files = dict(provenance["files"])
        if not all(isinstance(text, str) for text in (provenance["digest"], *files.values())):
            raise TypeError("digests must be text")
    except (ValueError, KeyError, TypeError, OSError) as failure:
        raise UserError(f"{path}: expected the provenance of an artefact: {failure!r}") from failure
    for required in (WEIGHTS, NETWORK):
        if required not in files:
            raise UserError(f"{path}: expected a digest of {required}, found none")
    for name, expected in files.items():
        file = folder / name
        if name not in present:
            raise UserError(f"{file}: expected a file of the artefact, found none")
        if file_digest(file) != expected:
            raise UserError(
                f"{file}: wrong digest: expected {expected[:12]}, got {file_digest(file)[:12]}: "
                "the file was changed or damaged"
            )
    return Artefact(folder, provenance)


def _own_files(folder: Path) -> set[str]:
    """The names of the files in the folder of an artefact, none of which may lead out of it."""
    lying = sorted(folder.iterdir()) if looked_up(folder, "artefact").is_dir() else ()
    for file in lying:
        if file.is_symlink():
            raise UserError(
                f"{file}: expected a file of the artefact, got a link: copy what it leads to"
            )
    return {file.name for file in lying if file.is_file()}


def load(
    folder: str | Path, *, network: nn.Module | None = None, allow: Sequence[str] = ()
) -> nn.Module:
    """A trained network from its artefact folder and nothing else.

    Args:
        folder: an artefact folder, such as ``student`` in a run folder.
        network: a network to fill with the weights, when it was trained from an object whose
            constructor could not be recorded.
        allow: packages beside this project's whose classes the constructor node may name.

    Returns:
        The network in eval mode.

    Raises:
        UserError: the folder is no artefact, a digest is wrong, or the weights do not fit.
    """
    return read_artefact(Path(folder)).network(allow, network)


def snapshots_in(folder: Path | None) -> list[Path]:
    """The weights after each epoch of a training, the earliest first, where they were kept."""
    return [] if folder is None else sorted(folder.glob("epoch-*.safetensors"))


def _path(network: nn.Module) -> str:
    return f"{type(network).__module__}.{type(network).__qualname__}"

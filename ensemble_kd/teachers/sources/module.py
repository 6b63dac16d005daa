"""A network of the user's own class, with weights from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ensemble_kd.build import build
from ensemble_kd.errors import UserError
from ensemble_kd.fingerprint import code_digest, foreign_packages, module_digest
from ensemble_kd.given_files import digest_of, offered
from ensemble_kd.state_dicts import fill, read_weights
from ensemble_kd.teachers.sources.preprocess import Preprocess, prepared, seen
from ensemble_kd.teachers.sources.source import Loaded, Source, Told


@dataclass(frozen=True)
class Module(Source):
    """A class, or a function that makes a network, by its import path.

    Args:
        path: the import path; its package must be on the allow-list (``allow=[package]``).
        weights: safetensors, or a state dict as ``torch.save`` writes it.
        arguments: of the class or function, by name.
        key: under which the state dict lies in the file, such as ``state_dict``.
        prefix: before every name in it, such as ``module.``; names without it are left out.
        preprocess: what it makes of the images; None for one that sees what the student sees.
    """

    path: str
    weights: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    prefix: str = ""
    preprocess: Preprocess | None = None

    def load(self, told: Told) -> Loaded:
        """The network, filled with the weights."""
        node = {"_target_": self.path, **self.arguments}
        network = build(node, self.path, told.allow)
        if not isinstance(network, nn.Module):
            raise UserError(f"{self.path}: expected a network, got {type(network).__name__}")
        fill(network, read_weights(self.weights, self.key, self.prefix), self.weights)
        settings = {
            "path": self.path,
            # The arguments, too: objects among them have been made by whoever made this source.
            "network": module_digest(network),
            "code": {name: code_digest(name) for name in sorted(foreign_packages(node))},
            **seen(self.preprocess, told),
        }
        digest = digest_of("module", [offered(self.weights, "weights", any_bytes=True)], settings)
        return Loaded(prepared(network, self.preprocess, told).eval(), digest)

"""Networks of timm, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ensemble_kd.errors import UserError, nearest
from ensemble_kd.files import file_digest
from ensemble_kd.given_files import offered, one_line, shortened
from ensemble_kd.networks.arguments import at_least, image_shape
from ensemble_kd.optional import optional
from ensemble_kd.state_dicts import fill, read_weights

REFUSED = ("pretrained", "checkpoint", "cache_dir", "features_only")
"""Begin the arguments by which timm reads weights of its own choice, or makes no classifier."""


class TimmNetwork(nn.Module):
    """A network of the library timm, which is an optional extra.

    Its only child is ``network``, the module that timm makes. It sees the images as the data serves
    them. Weights decide only how it begins: afterwards, ``weights`` and ``sha256`` are None.

    Args:
        inputs: shape of one image, (channels, height, width).
        classes: number of classes.
        name: of the network, such as ``resnet18``, without a tag of pretrained weights.
        weights: a file of weights to begin with, safetensors or a state dict; None for new ones. A
            classifier in it that has another number of classes is left out.
        sha256: of that file, in hex: so that another file under the same name is another student.
        arguments: further ones of ``timm.create_model``; none by which it reads files.

    Raises:
        UserError: timm is not installed, has no such network, or the weights do not fit.
        ValueError: an argument is out of range, or there are weights without their digest.
    """

    begins_with = ("weights", "sha256")

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        name: str,
        weights: str | None = None,
        sha256: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape(inputs)
        at_least(2, classes=classes)
        given = dict(arguments or {})
        taken = {"in_chans", "num_classes"} & set(given)
        if taken:
            raise ValueError(
                f"arguments must not hold {', '.join(sorted(taken))}: the data says it"
            )
        asked = {"num_classes": classes, "in_chans": channels, **given}
        self.network = create(library(), name, asked)
        if weights is not None:
            _begin(self.network, weights, sha256)
        self.inputs = tuple(inputs)
        self.classes = classes
        self.name = name
        self.weights = None
        self.sha256 = None
        self.arguments = given

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, channels, height, width) to logits (b, classes)."""
        logits: Tensor = self.network(inputs)
        return logits


def library() -> Any:
    """The library.

    Raises:
        UserError: it is not installed, or does not fit the other packages that are.
    """
    try:
        return optional("timm", "timm", "a network of timm")
    except UserError:
        raise
    except Exception as failure:  # it fails in many ways where torchvision does not fit torch
        raise UserError(f"timm cannot be imported: {one_line(failure)}") from failure


def create(
    timm: Any,
    name: str,
    arguments: Mapping[str, Any],
    published: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network of timm with new weights; nothing is read for it.

    Args:
        timm: the library.
        name: of the network, without a tag of pretrained weights.
        arguments: of ``timm.create_model``, perhaps from a file of a stranger.
        published: timm's own configuration, ``pretrained_cfg``; None for that of the name.

    Raises:
        UserError: there is no such network, or it does not take the arguments.
    """
    refused = [key for key in map(str, arguments) if key.startswith(REFUSED)]
    if refused:
        raise UserError(
            f"timm: {name}: arguments must not hold {shortened(refused)}: weights come from "
            "weights: FILE and nowhere else"
        )
    known = timm.list_models()
    if name not in known:
        raise UserError(f"timm has no network {name!r}{nearest(name, known)}")
    own = {} if published is None else {"pretrained_cfg": dict(published)}
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **own, **arguments)
    except Exception as failure:  # whatever a constructor raises
        raise UserError(f"timm: {name}: {one_line(failure)}") from failure
    return network


def _begin(network: nn.Module, weights: str, sha256: str | None) -> None:
    found = file_digest(offered(weights, "weights", any_bytes=True))
    if sha256 != found:
        raise ValueError(f"sha256 must be that of {weights}, {found}, got {sha256}")
    state, own = read_weights(weights), network.state_dict()
    named = getattr(network, "default_cfg", {}).get("classifier") or ()
    heads = tuple(f"{head}." for head in ([named] if isinstance(named, str) else named))
    # Those of other classes are of no use; the head begins anew.
    kept = {
        name: own[name]
        if name.startswith(heads) and name in own and value.shape != own[name].shape
        else value
        for name, value in state.items()
    }
    fill(network, kept, weights)

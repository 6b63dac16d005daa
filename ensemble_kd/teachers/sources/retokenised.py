"""How a network that this project trained reads texts: with the tokenizer that lies beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ensemble_kd.errors import UserError
from ensemble_kd.networks.prepared import Prepared
from ensemble_kd.optional import optional
from ensemble_kd.plain_files import read_json
from ensemble_kd.teachers.sources.reading import Encoder
from ensemble_kd.teachers.sources.source import Told
from ensemble_kd.teachers.sources.tokenizers import FILE, settings_in, settings_of
from ensemble_kd.types import Tokens


def with_own_tokens(network: nn.Module, folder: Path, told: Told) -> nn.Module:
    """A network that reads texts as it did when it was trained.

    Args:
        network: takes ``Tokens``; itself where its tokenizer is that of the data.
        folder: the artefact, with its tokenizer.
        told: of the data, which are texts.

    Raises:
        UserError: no tokenizer lies there, or another one than that of the data, whose tokens have
            classes.
    """
    own = settings_in(folder)
    if own is None:
        raise UserError(f"{folder}: expected {FILE}, with which it reads texts, found none")
    if own == settings_of(told.tokenizer):
        return network
    if told.per_token:
        raise UserError(
            f"{folder}: its tokenizer is not that of the data, where each token has a class: use "
            "it for the data too, with data.tokenizer"
        )
    return Prepared(network, Retokenised(folder))


class Retokenised(nn.Module):
    """Texts in the tokens of another tokenizer, of the length to which it cuts and pads.

    Args:
        folder: an artefact with a tokenizer.
    """

    own_tokens = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        library = optional("tokenizers", "text", str(folder))
        said = read_json(folder / FILE)
        self.length = int(said["truncation"]["max_length"])
        self.pad = int(said["padding"]["pad_id"])
        self.encoder = Encoder(library.Tokenizer.from_file(str(folder / FILE)), self.length)

    def forward(self, inputs: Tokens) -> Tokens:
        """The same texts, (b, length)."""
        texts = [bytes(row).rstrip(b"\0") for row in inputs.text.cpu().numpy()]
        ids = np.full((len(texts), self.length), self.pad, np.int64)
        kinds = np.zeros_like(ids)
        lengths = np.zeros(len(texts), np.int64)
        for row, (own, own_kinds) in enumerate(self.encoder.encoded(texts)):
            ids[row, : len(own)], kinds[row, : len(own)], lengths[row] = own, own_kinds, len(own)
        mask = np.arange(self.length) < lengths[:, None]
        device = inputs.ids.device
        made = [torch.from_numpy(part).to(device) for part in (ids, mask, kinds)]
        return Tokens(made[0], made[1], made[2], inputs.text)

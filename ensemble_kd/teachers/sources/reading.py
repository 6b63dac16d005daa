"""How a network of transformers reads texts: as the data has them in tokens, or from the text."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.given_files import one_line
from ensemble_kd.networks.pretrained import places
from ensemble_kd.teachers.sources.source import Told
from ensemble_kd.teachers.sources.tokenizers import settings_in, settings_of
from ensemble_kd.types import SEPARATOR, Tokens

FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"),
    *("spiece.model", "sentencepiece.bpe.model", "spm.model"),
)
"""In at least one of these a tokenizer has its vocabulary."""

ENDLESS = 1_000_000
"""A tokenizer that takes more tokens than this says nothing of how many its network takes."""


def reading(
    transformers: Any, folder: Path, network: Any, told: Told, length: int | None
) -> Reading:
    """What makes of ``Tokens`` the arguments of a network.

    Args:
        transformers: the library.
        folder: of the network, with its tokenizer.
        network: of transformers; it learns which token is padding if it does not know.
        told: of the data, which are texts.
        length: of the teacher's own tokens; None for that of the data.

    Raises:
        UserError: no tokenizer, none for padding, another one for data with a class per token, or
            more tokens than the network takes.
    """
    own = _tokenizer(transformers, folder)
    pad = own.pad_token_id if own.pad_token_id is not None else network.config.pad_token_id
    if pad is None:
        raise UserError(f"{folder}: expected a tokenizer with a token for padding, got one without")
    if network.config.pad_token_id is None:
        network.config.pad_token_id = pad
    backend = own.backend_tokenizer
    left = own.padding_side == "left"
    as_given = not left and settings_of(told.tokenizer) in (
        settings_of(backend),
        settings_in(folder),
    )
    if told.per_token and not as_given:
        raise UserError(
            f"{folder}: its tokenizer is not that of the data, where each token has a class: use "
            "it for the data, too, with data.tokenizer: {_target_: ensemble_kd.data.Pretrained, "
            f"path: {folder}}}"
        )
    size = told.inputs[0] if as_given or length is None else length
    limit = min(each for each in (own.model_max_length, places(network), ENDLESS) if each)
    if size > limit:
        key = "data.length" if as_given else "length"
        raise UserError(f"{folder}: {key}: expected at most {limit} tokens, got {size}")
    kinds = "token_type_ids" in own.model_input_names
    encoder = Encoder(backend, size)
    return Reading(encoder, size, int(pad), int(own.pad_token_type_id), left, kinds, as_given)


class Reading(nn.Module):
    """From ``Tokens`` to the arguments of a network of transformers.

    All batches have one length, whatever is in them, so that the same text gets the same answer
    to the last bit.

    Args:
        encoder: the teacher's own tokenizer.
        length: tokens of each text.
        pad: number of the token for padding.
        pad_kind: its kind.
        left: the padding stands before the text.
        kinds: the network wants to know which text of a pair a token is in.
        as_given: the tokenizer of the data is the same: its tokens are taken.
    """

    def __init__(
        self,
        encoder: Encoder,
        length: int,
        pad: int,
        pad_kind: int,
        left: bool,
        kinds: bool,
        as_given: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.length = length
        self.pad = pad
        self.pad_kind = pad_kind
        self.left = left
        self.kinds = kinds
        self.as_given = as_given

    @property
    def own_tokens(self) -> bool:
        """Whether the tokens are others than those of the data."""
        return not self.as_given

    def forward(self, inputs: Tokens) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, (b, length) int64."""
        if self.as_given:
            kept = torch.where(inputs.mask, inputs.ids, self.pad)
            given = {"input_ids": kept, "attention_mask": inputs.mask.long()}
            return given | ({"token_type_ids": inputs.kinds} if self.kinds else {})
        texts = [bytes(row).rstrip(b"\0") for row in inputs.text.cpu().numpy()]
        shape = (len(texts), self.length)
        ids, mask = np.full(shape, self.pad, np.int64), np.zeros(shape, np.int64)
        kinds = np.full(shape, self.pad_kind, np.int64)
        for row, (own_ids, own_kinds) in enumerate(self.encoder.encoded(texts)):
            place = slice(self.length - len(own_ids), None) if self.left else slice(len(own_ids))
            ids[row, place], kinds[row, place], mask[row, place] = own_ids, own_kinds, 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        arrays |= {"token_type_ids": kinds} if self.kinds else {}
        device = inputs.ids.device
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}

    def extra_repr(self) -> str:
        """By which two of them are told apart."""
        return f"length={self.length}, left={self.left}, as_given={self.as_given}"


Encoded = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


class Encoder:
    """A tokenizer that remembers the texts that it has read.

    Args:
        tokenizer: of the library ``tokenizers``; a copy of it is made, without padding.
        length: to how many tokens it cuts.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(length)
        self._known: dict[bytes, Encoded] = {}

    def encoded(self, texts: list[bytes]) -> list[Encoded]:
        """Numbers and kinds of the tokens of some texts, each (l,) with l <= length.

        Args:
            texts: in UTF-8, the two of a pair with ``SEPARATOR`` between them.
        """
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        parts = [tuple(text.decode().split(chr(SEPARATOR))) for text in new]
        given = [both if len(both) > 1 else both[0] for both in parts]
        for text, found in zip(new, self.tokenizer.encode_batch(given), strict=True):
            self._known[text] = np.array(found.ids, np.int32), np.array(found.type_ids, np.int32)
        return [self._known[text] for text in texts]

    # A copy says the same, and may know the same.
    def __deepcopy__(self, memo: dict[int, Any]) -> Encoder:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "_known": {}}


def _tokenizer(transformers: Any, folder: Path) -> Any:
    if not any((folder / name).is_file() for name in FILES):
        raise UserError(
            f"{folder}: expected a tokenizer such as tokenizer.json, found none: "
            "tokenizer.save_pretrained(folder) writes one"
        )
    try:
        own = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as failure:  # the library raises many kinds
        raise UserError(
            f"{folder}: the tokenizer cannot be loaded: {one_line(failure)}"
        ) from failure
    if getattr(own, "backend_tokenizer", None) is None:
        raise UserError(
            f"{folder}: expected a tokenizer of the library tokenizers, got {type(own).__name__}"
        )
    return own

"""From a batch of texts to a state for each token, and from there to classes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kd.networks.arguments import probability
from ensemble_kd.types import Tokens


class Encoder(nn.Module):
    """Embeddings and blocks of a transformer, as the package transformers has them.

    Children: ``embeddings`` and ``encoder``, with the blocks ``encoder.layer.0`` and so on. Each of
    these gives a tensor (b, l, d), so that taps can be put on them; likewise the linear layers
    ``attention.self.query``, ``key`` and ``value`` of a block.

    No token attends to padding. What stands at padding decides nothing about the other tokens:
    embeddings that look at their neighbours see zeros there, as beyond the end.

    Args:
        model: has ``embeddings``, with ``word_embeddings`` in it, and ``encoder`` like a BERT, with
            eager attention.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings: Any = model.embeddings
        self.encoder: Any = model.encoder

    def forward(self, inputs: Tokens) -> Tensor:
        """(b, l, d) the state of each token; those of padding mean nothing."""
        embedded, bias = self.embedded(inputs)
        states: Tensor = self.encoder(embedded, bias).last_hidden_state
        return states

    def embedded(self, inputs: Tokens) -> tuple[Tensor, Tensor]:
        """What goes into each block: the states (b, l, d) into the first, and (b, 1, 1, l).

        The second is added to the scores of each key, for all queries.
        """
        words = self.embeddings.word_embeddings(inputs.ids.masked_fill(~inputs.mask, 0))
        words = words.masked_fill(~inputs.mask[:, :, None], 0)
        embedded: Tensor = self.embeddings(inputs_embeds=words, token_type_ids=inputs.kinds)
        # No branch depends on the data, so that the network can be exported. The least finite
        # number, for -inf would make NaN of a text without tokens.
        seen = inputs.mask[:, None, None, :]
        lowest = torch.finfo(embedded.dtype).min
        return embedded, torch.zeros_like(seen, dtype=embedded.dtype).masked_fill(~seen, lowest)


class First(nn.Module):
    """The state of the first token, [CLS]: (b, d) of (b, l, d)."""

    def forward(self, states: Tensor) -> Tensor:
        """(b, d)."""
        return states[:, 0]


def classified(
    body: nn.Module, width: int, classes: int, per_token: bool, dropout: float
) -> OrderedDict[str, nn.Module]:
    """A body and what makes classes of its states, drawn from N(0, 0.02^2) with bias zero.

    Of a text: the state of [CLS], a linear layer with tanh (``pooler``), dropout (``drop``), a
    linear layer (``classifier``). Of each token: dropout, a linear layer.

    Args:
        body: gives states (b, l, width).
        width: of the states.
        classes: number of classes.
        per_token: a class for each token and not for each text.
        dropout: share of the features that the classifier misses while training.
    """
    drop = nn.Dropout(probability("dropout", dropout))
    classifier = _drawn(width, classes)
    if per_token:
        return OrderedDict(body=body, drop=drop, classifier=classifier)
    pooler: OrderedDict[str, nn.Module] = OrderedDict(
        first=First(), dense=_drawn(width, width), tanh=nn.Tanh()
    )
    return OrderedDict(body=body, pooler=nn.Sequential(pooler), drop=drop, classifier=classifier)


def _drawn(width: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(width, outputs)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer

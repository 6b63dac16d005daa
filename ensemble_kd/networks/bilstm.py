"""A bidirectional LSTM."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ensemble_kd.functional import uncast
from ensemble_kd.networks.arguments import at_least, probability, text_length
from ensemble_kd.types import Tokens


class BiLstm(nn.Sequential):
    """One layer of LSTMs in both directions, a hidden layer, a classifier.

    Children, run one after the other: ``body`` takes ``Tokens`` and gives the last states of both
    directions (b, 2 width), or with ``per_token`` those at every token (b, l, 2 width); ``units``
    (a linear layer with ReLU and dropout); ``classifier``.

    Source: Tang et al., Distilling Task-Specific Knowledge from BERT into Simple Neural Networks
    (arXiv 1903.12136), section 3.1: 150 or 300 units in each direction, 200 or 400 hidden ones.
    Deviations: embeddings of subwords, learned from new weights, in place of word vectors that were
    trained elsewhere; the variant for sequence labelling. The LSTMs are computed in float32, also
    under mixed precision.

    Args:
        vocabulary: how many tokens there are.
        inputs: (length,) of a text in tokens.
        classes: number of classes.
        per_token: a class for each token, logits (b, l, c), and not for each text, (b, c).
        embedding: width of the embedding of a token.
        width: units of each direction.
        hidden: units of the hidden layer.
        dropout: share of the features that the classifier misses while training.

    Raises:
        ValueError: an argument is out of range.
    """

    body: BothWays

    def __init__(
        self,
        vocabulary: int,
        inputs: Sequence[int],
        classes: int,
        per_token: bool = False,
        embedding: int = 100,
        width: int = 150,
        hidden: int = 200,
        dropout: float = 0.0,
    ) -> None:
        text_length(inputs)
        at_least(1, vocabulary=vocabulary, embedding=embedding, width=width, hidden=hidden)
        at_least(2, classes=classes)
        behind: OrderedDict[str, nn.Module] = OrderedDict(
            dense=nn.Linear(2 * width, hidden),
            relu=nn.ReLU(),
            drop=nn.Dropout(probability("dropout", dropout)),
        )
        super().__init__(
            OrderedDict(
                body=BothWays(vocabulary, embedding, width, per_token),
                units=nn.Sequential(behind),
                classifier=nn.Linear(hidden, classes),
            )
        )
        self.vocabulary = vocabulary
        self.inputs = tuple(inputs)
        self.classes = classes
        self.per_token = per_token
        self.embedding = embedding
        self.width = width
        self.hidden = hidden
        self.dropout = dropout


class BothWays(nn.Module):
    """An LSTM from the first token on, and one that begins at the last token and not at padding.

    The second reads each text in reverse order, padding still behind. So neither sees padding
    before its last state, and no sequence is packed, which would make the computation depend on
    the lengths.
    """

    def __init__(self, vocabulary: int, embedding: int, width: int, per_token: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.rightward = nn.LSTM(embedding, width, batch_first=True)
        self.leftward = nn.LSTM(embedding, width, batch_first=True)
        self.per_token = per_token

    def forward(self, inputs: Tokens) -> Tensor:
        """(b, 2 w), or (b, l, 2 w) with a state for each token; those of padding mean nothing."""
        embedded = self.embedding(inputs.ids.masked_fill(~inputs.mask, 0))
        places = torch.arange(inputs.mask.shape[1], device=embedded.device)
        lengths = inputs.mask.sum(dim=1, keepdim=True).clamp(min=1)
        # Place p of a text of n tokens swaps with n - 1 - p; padding stays where it is.
        mirrored = torch.where(places < lengths, lengths - 1 - places, places)
        # LSTMs in half precision are not there on all processors.
        with uncast(embedded):
            rightward, _ = self.rightward(embedded)
            leftward, _ = self.leftward(_at(embedded, mirrored))
        if self.per_token:
            return torch.cat([rightward, _at(leftward, mirrored)], dim=2)
        last = lengths - 1
        return torch.cat([_at(rightward, last), _at(leftward, last)], dim=2).squeeze(1)


def _at(states: Tensor, places: Tensor) -> Tensor:
    """(b, k, d) the states (b, l, d) at places (b, k)."""
    return states.gather(1, places.unsqueeze(2).expand(-1, -1, states.shape[2]))

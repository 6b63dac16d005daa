"""BERT, from new weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ensemble_kd.networks.arguments import at_least, divides, probability, text_length
from ensemble_kd.networks.encoder import Encoder, classified
from ensemble_kd.optional import optional


class Bert(nn.Sequential):
    """A transformer encoder with a classifier on [CLS], or on every token.

    Children, run one after the other: ``body`` takes ``Tokens`` and gives the states of all tokens
    (``body.embeddings``, ``body.encoder.layer.0``, ...), ``pooler`` (a linear layer and tanh on the
    state of the first token; not with ``per_token``), ``drop``, ``classifier``.

    Source: Devlin et al. (arXiv 1810.04805); the blocks are those of the package transformers, with
    attention computed step by step, so that no choice of a kernel decides about the result. Initial
    weights from N(0, 0.02^2), biases zero. Deviation: no embedding is special, also not that of
    padding, which no token sees.

    Args:
        vocabulary: how many tokens there are.
        inputs: (length,) of a text in tokens.
        classes: number of classes.
        per_token: a class for each token, logits (b, l, c), and not for each text, (b, c).
        layers: number of blocks.
        width: of the state of a token.
        heads: of the attention; divides the width.
        inner: width inside the feed-forward parts.
        dropout: share of what is dropped while training: of states, attention, and what the
            classifier sees.

    Raises:
        ValueError: an argument is out of range.
        UserError: the package transformers is not installed.
    """

    body: Encoder

    def __init__(
        self,
        vocabulary: int,
        inputs: Sequence[int],
        classes: int,
        per_token: bool = False,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        inner: int = 512,
        dropout: float = 0.1,
    ) -> None:
        length = text_length(inputs)
        at_least(1, vocabulary=vocabulary, layers=layers, width=width, heads=heads, inner=inner)
        at_least(2, classes=classes)
        divides(heads, width)
        transformers = optional("transformers", "text", "Bert")
        config = transformers.BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            hidden_dropout_prob=probability("dropout", dropout),
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=length,
            pad_token_id=None,
            attn_implementation="eager",
        )
        body = Encoder(transformers.BertModel(config, add_pooling_layer=False))
        super().__init__(classified(body, width, classes, per_token, dropout))
        self.vocabulary = vocabulary
        self.inputs = tuple(inputs)
        self.classes = classes
        self.per_token = per_token
        self.layers = layers
        self.width = width
        self.heads = heads
        self.inner = inner
        self.dropout = dropout

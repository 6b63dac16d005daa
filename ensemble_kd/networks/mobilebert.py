"""MobileBERT and its teacher, from new weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from ensemble_kd.networks.arguments import at_least, divides, probability, text_length
from ensemble_kd.networks.encoder import Encoder, classified
from ensemble_kd.optional import optional

Normalisation = Literal["no_norm", "layer_norm"]
Activation = Literal["relu", "gelu"]


class MobileBert(nn.Sequential):
    """A transformer encoder whose blocks are narrower, or wider, inside than between each other.

    A thin student and its teacher differ inside the blocks (``inside``, ``stacked``) and agree
    between them (``width``) and in their heads, so that their states and attention maps can be
    compared as they are. Children as those of ``Bert``.

    Source: Sun et al., MobileBERT (arXiv 2004.02984), section 3; the blocks are those of the
    package transformers. The student has inside = width / 4 and 4 stacked feed-forward parts, no
    LayerNorm but a scale and a shift, and ReLU; its teacher, IB-BERT, inside = 2 width, one
    feed-forward part, LayerNorm and GELU. Initial weights from N(0, 0.02^2), biases zero.

    Args:
        vocabulary: how many tokens there are.
        inputs: (length,) of a text in tokens.
        classes: number of classes.
        per_token: a class for each token, logits (b, l, c), and not for each text, (b, c).
        layers: number of blocks.
        width: of the state of a token between the blocks.
        inside: width inside the blocks.
        heads: of the attention; divides the width inside.
        inner: width inside the feed-forward parts.
        stacked: feed-forward parts in a block.
        embedding: width of the embedding of a token; three neighbours make a state, zeros standing
            for those that are padding or beyond the end.
        normalisation: ``no_norm`` (a scale and a shift) or ``layer_norm``.
        activation: ``relu`` or ``gelu``.
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
        inside: int = 32,
        heads: int = 4,
        inner: int = 128,
        stacked: int = 4,
        embedding: int = 64,
        normalisation: Normalisation = "no_norm",
        activation: Activation = "relu",
        dropout: float = 0.1,
    ) -> None:
        length = text_length(inputs)
        at_least(1, vocabulary=vocabulary, layers=layers, width=width, inside=inside, heads=heads)
        at_least(1, inner=inner, stacked=stacked, embedding=embedding)
        at_least(2, classes=classes)
        divides(heads, inside, "inside")
        for name, value, known in (
            ("normalisation", normalisation, get_args(Normalisation)),
            ("activation", activation, get_args(Activation)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        transformers = optional("transformers", "text", "MobileBert")
        config = transformers.MobileBertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            hidden_act=activation,
            hidden_dropout_prob=probability("dropout", dropout),
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=length,
            pad_token_id=None,
            embedding_size=embedding,
            intra_bottleneck_size=inside,
            num_feedforward_networks=stacked,
            normalization_type=normalisation,
            attn_implementation="eager",
        )
        body = Encoder(transformers.MobileBertModel(config, add_pooling_layer=False))
        super().__init__(classified(body, width, classes, per_token, dropout))
        self.vocabulary = vocabulary
        self.inputs = tuple(inputs)
        self.classes = classes
        self.per_token = per_token
        self.layers = layers
        self.width = width
        self.inside = inside
        self.heads = heads
        self.inner = inner
        self.stacked = stacked
        self.embedding = embedding
        self.normalisation = normalisation
        self.activation = activation
        self.dropout = dropout

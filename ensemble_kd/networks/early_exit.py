"""A transformer that easy texts leave early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ensemble_kd.networks.arguments import at_least, divides, probability
from ensemble_kd.networks.bert import Bert
from ensemble_kd.types import Tokens


class Early(NamedTuple):
    """What a network says of texts that may leave it early.

    Attributes:
        logits: (b, c), those of the exit through which each text left.
        layers: (b,) int64, how many blocks each text went through.
    """

    logits: Tensor
    layers: Tensor


class EarlyExit(nn.Module):
    """BERT with a classifier behind each block, of which a text uses the first that is sure.

    Children: ``body``, as that of ``Bert``, and the classifiers ``exits.0``, ``exits.1`` and so on.
    The network itself answers through the last of them. In eval mode, with ``speed`` above zero, a
    text leaves through an earlier one whose uncertainty, the entropy of its prediction divided by
    that of equal probabilities, is below the speed; later blocks are run for the other texts only.
    While the network is trained, with speed 0, and until its earlier classifiers have learned (the
    buffer ``settled``, which ``BranchDistillation`` sets), all texts go through all blocks and
    nothing depends on what they are, so that it can be exported. Training the network through its
    last classifier, as calling it in training mode does, unsettles the earlier ones.

    Source: FastBERT, Liu et al. (arXiv 2004.02178), sections 3.1 and 3.3. Deviations: in the
    authors' code (autoliuweijie/FastBERT @859632f) a text also leaves where its uncertainty equals
    the speed; initial weights of the classifiers are PyTorch's and not N(0, 0.02^2), which is made
    for wide networks.

    Args:
        vocabulary: how many tokens there are.
        inputs: (length,) of a text in tokens.
        classes: number of classes.
        layers: number of blocks.
        width: of the state of a token.
        heads: of the attention; divides the width.
        inner: width inside the feed-forward parts.
        dropout: share of what is dropped while training.
        exit_width: of the classifiers; the paper has 128 for a width of 768.
        exit_heads: of their attention; divides their width.
        speed: in [0, 1]; may be changed at any time.

    Raises:
        ValueError: an argument is out of range.
        UserError: the package transformers is not installed.
    """

    settled: Tensor

    def __init__(
        self,
        vocabulary: int,
        inputs: Sequence[int],
        classes: int,
        layers: int = 4,
        width: int = 128,
        heads: int = 4,
        inner: int = 512,
        dropout: float = 0.1,
        exit_width: int = 32,
        exit_heads: int = 2,
        speed: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(1, exit_width=exit_width, exit_heads=exit_heads)
        divides(exit_heads, exit_width, "exit_width")
        if not 0 <= speed <= 1:
            raise ValueError(f"speed must be in [0, 1], got {speed}")
        bert = Bert(vocabulary, inputs, classes, False, layers, width, heads, inner, dropout)
        self.body = bert.body
        self.exits = nn.ModuleList(
            Exit(width, exit_width, exit_heads, classes, dropout) for _ in range(layers)
        )
        self.vocabulary = vocabulary
        self.inputs = tuple(inputs)
        self.classes = classes
        self.layers = layers
        self.width = width
        self.heads = heads
        self.inner = inner
        self.dropout = dropout
        self.exit_width = exit_width
        self.exit_heads = exit_heads
        self.speed = speed
        self.register_buffer("settled", torch.tensor(False))

    @property
    def unexportable(self) -> str | None:
        """Why it cannot be exported as it is; None where it can."""
        if self.speed > 0 and self.settled:
            return f"texts leave it early, with speed={self.speed:g}; only with speed=0 it can"
        return None

    def forward(self, inputs: Tokens) -> Tensor:
        """(b, c) logits."""
        if self.training:
            self.settled.fill_(False)
        if self.training or self.speed == 0 or not self.settled:
            return self.through(inputs, self.layers)
        return self.early(inputs).logits

    def through(self, inputs: Tokens, layers: int) -> Tensor:
        """(b, c) logits of the classifier behind so many blocks; later ones are not run."""
        states, bias = self.body.embedded(inputs)
        for block in self.body.encoder.layer[:layers]:
            states = block(states, bias)
        logits: Tensor = self.exits[layers - 1](states, bias)
        return logits

    def states(self, inputs: Tokens) -> tuple[list[Tensor], Tensor]:
        """What each classifier looks at: the states (b, l, d) behind each block, and (b, 1, 1, l).

        The second, which keeps padding out of sight, is the same for all.
        """
        states, bias = self.body.embedded(inputs)
        behind = []
        for block in self.body.encoder.layer:
            states = block(states, bias)
            behind.append(states)
        return behind, bias

    def early(self, inputs: Tokens) -> Early:
        """What it says where each text leaves as soon as its uncertainty is below the speed."""
        states, bias = self.body.embedded(inputs)
        rows = torch.arange(len(states), device=states.device)
        layers = torch.full_like(rows, self.layers)
        logits = states.new_empty(0)
        blocks = zip(self.body.encoder.layer, self.exits, strict=True)
        for number, (block, leave) in enumerate(blocks, start=1):
            states = block(states, bias)
            said = leave(states, bias)
            logits = said if number == 1 else logits.index_put((rows,), said)
            stays = uncertainty(said) >= self.speed
            if number == self.layers or stays.all():
                continue
            layers[rows[~stays]] = number
            rows, states, bias = rows[stays], states[stays], bias[stays]
            if not len(rows):
                break
        return Early(logits, layers)


class Exit(nn.Module):
    """A classifier of a text by the states of its tokens.

    A linear layer with tanh (``narrow``), self-attention with a linear layer behind, the first
    token of what comes out, a linear layer with tanh (``dense``), a linear layer (``classifier``).
    Of the attention only the first token asks, since only its answer is used.

    Args:
        states: width of the states.
        width: of all that follows.
        heads: of the attention; divides the width.
        classes: number of classes.
        dropout: share of the attention that is dropped while training.
    """

    def __init__(self, states: int, width: int, heads: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.narrow = nn.Linear(states, width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.drop = nn.Dropout(probability("dropout", dropout))
        self.mixed = nn.Linear(width, width)
        self.dense = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """(b, c) logits of states (b, l, d); the bias (b, 1, 1, l) is added to the scores."""
        narrow = self.narrow(states).tanh()
        query = self._apart(self.query(narrow[:, :1]))
        key, value = self._apart(self.key(narrow)), self._apart(self.value(narrow))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + bias
        # (b, heads, 1, d) to (b, heads d)
        seen = (self.drop(scores.softmax(-1)) @ value).flatten(1)
        logits: Tensor = self.classifier(self.dense(self.mixed(seen)).tanh())
        return logits

    def _apart(self, states: Tensor) -> Tensor:
        """(b, heads, l, d) of (b, l, heads d)."""
        apart: Tensor = states.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return apart


def uncertainty(logits: Tensor) -> Tensor:
    """Normalised entropy of predictions, in [0, 1]: 0 for one sure class, 1 for equal ones.

    Source: FastBERT (arXiv 2004.02178), equation 7.

    Args:
        logits: (b, c), c >= 2.

    Returns:
        (b,) float32 or wider.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    entropy: Tensor = torch.special.entr(wide.softmax(-1)).sum(-1)
    return entropy / math.log(logits.shape[-1])

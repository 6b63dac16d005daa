"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ensemble_kd.networks.arguments import at_least, probability, sizes
from ensemble_kd.networks.scaling import scaled


class Mlp(nn.Sequential):
    """Linear layers with BatchNorm and ReLU, on inputs of any shape.

    Children, run one after the other: ``flatten``, ``layers`` (``layers.0``, ``layers.1``, ...),
    ``classifier``.

    Args:
        inputs: shape of one sample.
        classes: number of classes.
        hidden: units of each hidden layer.
        batch_norm: whether a BatchNorm follows each hidden layer, which then has no bias.
        dropout: share of the units that is dropped after each hidden layer while training.
        scale: factor of the hidden units, rounded to whole numbers, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        hidden: Sequence[int] = (64,),
        batch_norm: bool = True,
        dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        features = math.prod(sizes("inputs", inputs))
        hidden = sizes("hidden", hidden)
        at_least(2, classes=classes)
        probability("dropout", dropout)
        layers = []
        before = features
        for after in scaled(hidden, scale):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            parts["linear"] = nn.Linear(before, after, bias=not batch_norm)
            if batch_norm:
                parts["norm"] = nn.BatchNorm1d(after)
            parts["relu"] = nn.ReLU()
            parts["dropout"] = nn.Dropout(dropout)
            layers.append(nn.Sequential(parts))
            before = after
        super().__init__(
            OrderedDict(
                flatten=nn.Flatten(),
                layers=nn.Sequential(*layers),
                classifier=nn.Linear(before, classes),
            )
        )
        self.inputs = tuple(inputs)
        self.classes = classes
        self.hidden = hidden
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.scale = scale

"""What becomes of the accuracy when samples get worse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import nn
from torch.utils import _pytree as pytree

from ensemble_kd.corruptions import SEVERITIES, Corruption
from ensemble_kd.predict import networks_of, predict
from ensemble_kd.teachers import Numbered
from ensemble_kd.types import UNLABELLED, Batch


class Spoilt(NamedTuple):
    """Accuracies under one corruption of one severity.

    Attributes:
        corruption: its name.
        severity: 1 to 5.
        n: labelled samples.
        accuracy: share of them that each predictor gets right.
    """

    corruption: str
    severity: int
    n: int
    accuracy: dict[str, float]


class Robustness:
    """Measures predictors on spoilt samples.

    Args:
        corruptions: by the name under which they are reported; those that do not suit the data are
            left out.
        severities: of 1 to 5, those that are measured.
        samples: so many of the split at most, its first ones.

    Raises:
        ValueError: a severity is none, or there is no sample.
    """

    def __init__(
        self,
        corruptions: Mapping[str, Corruption],
        severities: Sequence[int] = SEVERITIES,
        samples: int = 1000,
    ) -> None:
        odd = [each for each in severities if each not in SEVERITIES]
        if odd:
            raise ValueError(f"severities must be of 1 to 5, got {odd[0]}")
        if samples < 1:
            raise ValueError(f"samples must be >= 1, got {samples}")
        self.corruptions = dict(corruptions)
        self.severities = tuple(severities)
        self.samples = samples

    def measure(
        self,
        predictors: Mapping[str, nn.Module],
        loader: Iterable[Batch],
        classes: int,
        tokenizer: Any = None,
        device: torch.device | str = "cpu",
    ) -> list[Spoilt]:
        """Accuracies by corruption and severity.

        Predictors that know their answers by the numbers of the samples, as recorded teachers do,
        and what they are mixed into, see no inputs and are left out. No corruption suits inputs
        whose shapes differ from batch to batch, such as texts that are padded to the longest.

        Args:
            predictors: networks by name.
            loader: the batches of one split.
            classes: number of classes.
            tokenizer: of data that are texts.
            device: where to compute.

        Raises:
            UserError: a predictor gives NaN or infinite predictions for spoilt samples.
        """
        looking = {name: each for name, each in predictors.items() if _looks(each)}
        batches = self._first(loader)
        found: list[Spoilt] = []
        if not looking or not batches:
            return found
        whole = _whole([batch.inputs for batch in batches])
        if whole is None:
            return found
        for name, corruption in self.corruptions.items():
            own = corruption.fitted(whole, tokenizer)
            if batches[0].places is not None or not own.suits(whole):
                continue
            for severity in self.severities:
                spoilt = (b._replace(inputs=own(b.inputs, b.index, severity)) for b in batches)
                said = predict(looking, spoilt, classes, device)
                known = said.target != UNLABELLED
                if not known.any():
                    return []
                right = {
                    predictor: float((logits.argmax(-1) == said.target)[known].double().mean())
                    for predictor, logits in said.logits.items()
                }
                found.append(Spoilt(name, severity, int(known.sum()), right))
        return found

    def _first(self, loader: Iterable[Batch]) -> list[Batch]:
        """The first batches of a split, cut to the number of samples that are wanted."""
        taken: list[Batch] = []
        left = self.samples
        for served in loader:
            batch = move_data_to_device(served, torch.device("cpu"))
            taken.append(_cut(batch, left))
            left -= len(batch.index)
            if left <= 0:
                break
        return taken


def _whole(parts: Sequence[Any]) -> Any:
    """The inputs of several batches as one; None where their parts are of different shapes."""
    kind = pytree.tree_structure(parts[0])
    columns = zip(*map(pytree.tree_leaves, parts), strict=True)
    joined = []
    for column in columns:
        tensors = [part for part in column if isinstance(part, torch.Tensor)]
        if len(tensors) < len(parts) or len({part.shape[1:] for part in tensors}) > 1:
            return None
        joined.append(torch.cat(tensors))
    return pytree.tree_unflatten(joined, kind)


def _cut(batch: Batch, count: int) -> Batch:
    def first(part: Any) -> Any:
        return part[:count] if isinstance(part, torch.Tensor) else part

    mask = None if batch.mask is None else batch.mask[:count]
    inputs = pytree.tree_map(first, batch.inputs)
    places = None if batch.places is None else batch.places[:count]
    return Batch(inputs, batch.target[:count], batch.index[:count], mask, places=places)


def _looks(predictor: nn.Module) -> bool:
    return not any(
        isinstance(part, Numbered)
        for network in networks_of(predictor)
        for part in network.modules()
    )

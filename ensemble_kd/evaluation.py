"""How good the predictors of a run are, and how near to each other: one pass over a split."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from ensemble_kd.errors import UserError
from ensemble_kd.metrics import Agreement, NegativeLogLikelihood, PredictiveKL, SpanF1, cut_texts
from ensemble_kd.teachers import Frozen, Kept, Mixture, asked
from ensemble_kd.types import UNLABELLED, Batch

SURE = 1 - 2**-24
"""The largest float32 below 1."""


class Scores(NamedTuple):
    """How good a predictor is on the labelled samples of a split.

    Attributes:
        accuracy: share of them whose class it ranks first; NaN when there are none, as the others.
        nll: mean negative log-likelihood, in nats.
        ece: top-label expected calibration error.
        n: how many there are.
        span_f1: F1 of whole entities, of classes that are BIO tags, if it was asked for.
    """

    accuracy: float
    nll: float
    ece: float
    n: int
    span_f1: float | None = None


class Nearness(NamedTuple):
    """How near two predictors are on all samples of a split, labelled or not.

    Attributes:
        agreement: share of the samples on which both rank the same class first.
        kl: mean KL(second || first), in nats.
    """

    agreement: float
    kl: float


class Measured(NamedTuple):
    """What was measured on one split: scores by name, nearness by pair of names."""

    predictors: dict[str, Scores]
    pairs: dict[tuple[str, str], Nearness]


class Evaluation:
    """Measures predictors on classification data.

    Accuracy and calibration error are torchmetrics' own classes. The calibration error is that of
    Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation 3, on bins of
    equal width.

    Args:
        bins: number of bins of the calibration error, >= 1.
        spans: also measure how well whole entities are found; see ``SpanF1``. Where texts were cut,
            a line on stderr says how many: entities in what was cut off do not count.
    """

    def __init__(self, bins: int = 15, spans: bool = False) -> None:
        if bins < 1:
            raise ValueError(f"bins must be >= 1, got {bins}")
        self.bins = bins
        self.spans = spans

    def measure(
        self,
        predictors: Mapping[str, nn.Module],
        loader: Iterable[Batch],
        classes: int,
        pairs: Sequence[tuple[str, str]] = (),
        device: torch.device | str = "cpu",
        known: Mapping[str, Kept] = MappingProxyType({}),
        names: Sequence[str] = (),
    ) -> Measured:
        """Measure all predictors and pairs in one pass.

        Each network runs once per batch, however many mixtures it is a member of. Everything runs
        in eval and inference mode on ``device``; the networks are left as and where they were.

        Args:
            predictors: networks by name; each takes a batch's inputs and gives logits (*, classes).
            loader: the batches of one split.
            classes: number of classes.
            pairs: names of a predictor and of the reference that it is held against.
            device: where to compute.
            known: what some of the predictors said of this very split: looked up, not computed.
            names: of the classes, in their order, which tell the entities.

        Raises:
            UserError: a predictor gives NaN or infinite predictions, or another number of classes;
                or the split is empty.
        """
        tags = self._tags(names)
        scores = {name: _Scoring(classes, self.bins, device, tags) for name in predictors}
        nearness = {pair: _Comparison(device) for pair in pairs}
        looked_up = {_network(predictors[name]): kept for name, kept in known.items()}
        networks = dict.fromkeys(part for p in predictors.values() for part in networks_of(p))
        running = [network for network in networks if network not in looked_up]
        batches = texts = cut = 0
        with resting_on(running, device), torch.inference_mode():
            for batch in loader:
                here = move_data_to_device(batch, torch.device(device))
                target = here.target if here.mask is None else _known(here.target, here.mask)
                only = torch.zeros_like(here.index)
                said = {
                    network: _wide(kept.read(here.index, only).to(device))
                    for network, kept in looked_up.items()
                }
                logits = {
                    name: _check_classes(name, _logits(network, here, said), classes)
                    for name, network in predictors.items()
                }
                for name, scoring in scores.items():
                    scoring.update(logits[name], target)
                for (first, second), comparison in nearness.items():
                    comparison.update(_said(logits[first], here), _said(logits[second], here))
                if self.spans:
                    cut, texts = cut + int(cut_texts(here)), texts + len(here.index)
                batches += 1
            if batches == 0:
                raise UserError("evaluation: expected at least one batch, got an empty split")
            for name, scoring in scores.items():
                scoring.check(name)
            if cut:
                print(
                    f"warning: evaluation.spans: {cut} of {texts} texts have words beyond "
                    "data.length, whose entities do not count: recall and F1 are too high",
                    file=sys.stderr,
                )
            return Measured(
                {name: scoring.compute() for name, scoring in scores.items()},
                {pair: comparison.compute() for pair, comparison in nearness.items()},
            )

    def _tags(self, names: Sequence[str]) -> Sequence[str] | None:
        """The names of the classes, where entities are to be found."""
        if not self.spans:
            return None
        try:
            SpanF1(names)
        except ValueError as failure:
            raise UserError(f"evaluation.spans: {failure}") from failure
        return names


class _Scoring:
    """The metrics of one predictor."""

    def __init__(
        self,
        classes: int,
        bins: int,
        device: torch.device | str,
        tags: Sequence[str] | None = None,
    ) -> None:
        self.spans = None if tags is None else SpanF1(tags).to(device)
        self.accuracy = MulticlassAccuracy(
            classes, average="micro", ignore_index=UNLABELLED, validate_args=False
        ).to(device)
        self.ece = MulticlassCalibrationError(
            classes, n_bins=bins, norm="l1", ignore_index=UNLABELLED, validate_args=False
        ).to(device)
        self.nll = NegativeLogLikelihood().to(device)
        self.sound = torch.ones((), dtype=torch.bool, device=device)

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: logits (n, c) of float32 or wider, target (*,) of n entries."""
        if self.spans is not None:
            self.spans.update(logits.argmax(-1).view(target.shape), target)
        target = target.flatten()
        self.accuracy.update(logits, target)
        self.nll.update(logits, target)
        # Not the logits: torchmetrics takes those that happen to lie in [0, 1] for probabilities.
        # And nothing above ``SURE``: it would give a confidence of exactly 1 a bin of its own.
        self.ece.update(logits.softmax(-1).clamp(max=SURE), target)
        # Finite exactly when the softmax is: no NaN, no +inf, and not every class ruled out. It
        # stays on the device until the end of the pass.
        self.sound = self.sound & logits.logsumexp(-1).isfinite().all()

    def check(self, name: str) -> None:
        """Refuse to give numbers for a predictor whose predictions are none."""
        if not self.sound:
            raise UserError(
                f"{name}: expected finite logits, got NaN or infinite ones; its training diverged "
                f"(lower optimizer.lr) or its inputs are not finite"
            )

    def compute(self) -> Scores:
        n = int(self.nll.count)
        if n == 0:
            return Scores(float("nan"), float("nan"), float("nan"), 0)
        spans = None if self.spans is None else float(self.spans.compute()["f1"])
        return Scores(_value(self.accuracy), _value(self.nll), _value(self.ece), n, spans)


class _Comparison:
    """The metrics of one pair."""

    def __init__(self, device: torch.device | str) -> None:
        self.agreement = Agreement().to(device)
        self.kl = PredictiveKL().to(device)

    def update(self, first: Tensor, second: Tensor) -> None:
        self.agreement.update(first, second)
        self.kl.update(student=first, reference=second)

    def compute(self) -> Nearness:
        return Nearness(_value(self.agreement), _value(self.kl))


def _value(metric: Metric) -> float:
    return float(metric.compute())


def _said(logits: Tensor, batch: Batch) -> Tensor:
    """(n, c) logits without those at padding, where nobody says anything."""
    return logits if batch.places is None else logits[batch.places.flatten()]


def _logits(predictor: nn.Module, batch: Batch, said: dict[nn.Module, Tensor]) -> Tensor:
    """Logits (n, c) of a predictor, float32 or wider; ``said`` keeps what each network said."""
    network = _network(predictor)
    if network not in said:
        if isinstance(network, Mixture):
            members = [_logits(member, batch, said) for member in network.members]
            said[network] = network.merge(members)
        else:
            said[network] = _wide(asked(network, batch).logits)
    return said[network]


def _wide(logits: Tensor) -> Tensor:
    """(n, c) logits of all places, float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)


def _network(predictor: nn.Module) -> nn.Module:
    return predictor.network if isinstance(predictor, Frozen) else predictor


def networks_of(predictor: nn.Module) -> list[nn.Module]:
    """The networks that a predictor runs: itself, or the members of a mixture."""
    if isinstance(predictor, Frozen):
        return networks_of(predictor.network)
    if isinstance(predictor, Mixture):
        return [network for member in predictor.members for network in networks_of(member)]
    return [predictor]


@contextmanager
def resting_on(networks: Sequence[nn.Module], device: torch.device | str) -> Iterator[None]:
    """Networks in eval mode on a device; afterwards each of their parts is as and where it was."""
    modes = {part: part.training for network in networks for part in network.modules()}
    homes = [(network, _device(network)) for network in networks]
    try:
        for network in networks:
            network.eval().to(device)
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        for network, home in homes:
            if home is not None:
                network.to(home)


def _device(network: nn.Module) -> torch.device | None:
    tensor = next(itertools.chain(network.parameters(), network.buffers()), None)
    return None if tensor is None else tensor.device


def _known(target: Tensor, mask: Tensor) -> Tensor:
    return target.masked_fill(~mask, UNLABELLED)


def _check_classes(name: str, logits: Tensor, classes: int) -> Tensor:
    if logits.shape[-1] != classes:
        raise UserError(
            f"{name}: expected {classes} classes as in the data, got {logits.shape[-1]}"
        )
    return logits

"""Collaborative learning on one target: the best that the networks can say together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble_kd.functional import log_probabilities, mean_logits, spread, stacked, uncast
from ensemble_kd.functional.targets import (
    best_combination,
    least_error_weights,
    min_logit,
    most_certain,
)
from ensemble_kd.objectives import Term
from ensemble_kd.strategies.branches import Branches, Descended, prefixed
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn, as_output, labelled
from ensemble_kd.weightings import Weighting

Target = Literal["naive", "linear", "min_logit", "general"]
Augmentation = Literal["own", "shared"]


class KDCL(Strategy):
    """Every network descends the terms under one target that is made from all of them, detached.

    Frozen teachers, where there are any, teach each network beside it. The target z*, from the
    logits z_k of the m networks, each of which sees its own augmentation of the samples:

    - ``naive``: for each sample the logits of the network with the smallest cross-entropy.
    - ``linear``: for each sample the convex combination with the smallest cross-entropy.
    - ``min_logit``: z*_c = min_k (z_kc - z_ky).
    - ``general``: sum_k w_k z_k, w_k = sum_j (C^-1)_kj / sum_ij (C^-1)_ij, where C_ij is the mean
      of (p_i - y) . (p_j - y) over the labelled samples of the validation split, measured anew
      after each epoch. Until the first measurement all weights are equal.

    Source: KDCL, Guo et al., Online Knowledge Distillation via Collaborative Learning (CVPR 2020),
    section 3; with temperature 2 and both weights one the terms are those of the paper. Deviations:
    on a sample without a label, for which the first three are not defined, the target is the mean
    of the logits. The paper holds out training images for C: here that is the validation split,
    which is not trained on either; if it also selects (``select=best``), it does two things.
    ``general`` combines logits. A public re-implementation sums the logits, which is none of the
    four.

    Args:
        peers: the networks beside the student; at least one; architectures may differ.
        terms: what is matched, by name.
        weighting: how much each teacher counts; the common target comes first, then the frozen
            ones.
        target: how the target is made.
        augmentation: each network sees its ``own`` augmentation, or all of them the ``shared`` one.

    Raises:
        ValueError: an argument is out of range.
    """

    errors: Tensor
    measured_at: Tensor

    def __init__(
        self,
        peers: list[nn.Module],
        terms: dict[str, Term],
        weighting: Weighting,
        target: Target = "min_logit",
        augmentation: Augmentation = "own",
    ) -> None:
        super().__init__()
        if target not in get_args(Target):
            raise ValueError(f"target must be one of {', '.join(get_args(Target))}, got {target!r}")
        if augmentation not in get_args(Augmentation):
            raise ValueError(f"augmentation must be own or shared, got {augmentation!r}")
        self.branches = Branches(peers)
        self.descended = Descended(terms, weighting)
        self.target: Target = target
        self.views = len(peers) + 1 if augmentation == "own" else 1
        count = len(peers) + 1
        self.register_buffer("errors", torch.zeros(count, count))
        self.register_buffer("measured_at", torch.tensor(-1))

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """``student``, ``peer/1``, ``peer/2`` and so on."""
        return self.branches.predictors(self.branches.networks(student))

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: all networks step together."""
        taught = teachers(batch, progress)
        networks = self.predictors(student)
        said = {
            name: as_output(network(inputs))
            for (name, network), inputs in zip(networks.items(), self._inputs(batch), strict=True)
        }
        voices = (Output(self.common_target(tuple(said.values()), batch)), *taught)
        terms: dict[str, Tensor] = {}
        for name, output in said.items():
            own = self.descended.own(output, batch, progress)
            own |= self.descended.taught(output, voices, batch, progress)
            terms |= prefixed(name, own)
        yield Turn("student", terms)

    def common_target(self, said: tuple[Output, ...], batch: Batch) -> Tensor:
        """z* of a batch.

        Args:
            said: m outputs, logits (*, c) each.
            batch: the batch that they are about.

        Returns:
            (*, c) logits, without gradient.
        """
        logits = stacked(said, said[0])
        if self.target == "general":
            return mean_logits(logits, spread(least_error_weights(self.errors), logits[0]))
        known = labelled(batch)
        label = torch.where(known, batch.target, 0)
        if self.target == "naive":
            best = most_certain(logits, label)
        elif self.target == "linear":
            best = mean_logits(logits, spread(best_combination(logits, label), logits[0]))
        else:
            best = min_logit(logits, label)
        return torch.where(known.unsqueeze(-1), best, logits.mean(dim=0))

    def validated(self, said: Mapping[str, Output], batch: Batch, progress: Progress) -> None:
        """Sum up the products of the networks' errors over a pass through the validation split."""
        known = labelled(batch)
        # In place: the buffers must not be replaced by tensors that only inference may touch.
        if int(self.measured_at) != progress.step:
            self.errors.zero_()
            self.measured_at.fill_(progress.step)
        names = self.branches.names()
        p = torch.stack([log_probabilities(said[name].logits[known]).exp() for name in names])
        missed = p - F.one_hot(batch.target[known], p.shape[-1]).to(p)
        with uncast(missed):
            self.errors += torch.einsum("i...c,j...c->ij", missed, missed)

    def _inputs(self, batch: Batch) -> tuple[Any, ...]:
        count = len(self.branches.names())
        if self.views == 1:
            return (batch.inputs,) * count
        if len(batch.views) != count - 1:
            raise ValueError(
                f"views must be {count - 1} further augmentations of each sample, got "
                f"{len(batch.views)}: strategy.augmentation=shared does without them"
            )
        return (batch.inputs, *batch.views)

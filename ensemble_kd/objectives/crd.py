"""Contrastive representation distillation: a sample's own embedding among those of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ensemble_kd.errors import UserError
from ensemble_kd.functional import unit
from ensemble_kd.objectives.contrast import Heads, contrast, log_total, pooled
from ensemble_kd.objectives.gathered import gathered
from ensemble_kd.objectives.layers import Layers
from ensemble_kd.objectives.material import Material
from ensemble_kd.objectives.memory import Memory
from ensemble_kd.objectives.objective import Objective
from ensemble_kd.types import UNLABELLED, Batch, Output, Progress
from ensemble_kd.weightings.draws import draws


class Crd(Objective):
    """A sample's embedding is told apart from those of samples of other classes, both ways.

    For each teacher two linear heads, both of them trained, embed its feature and the student's in
    vectors of unit length. A memory holds the last embeddings, by both heads, of all samples of the
    training data. With x a sample's embedding by one head, y+ the same sample's and y_1 ... y_K
    those of K other samples in the memory of the other head,

        -log h(y+) - sum_j log(1 - h(y_j)),   h(y) = p / (p + K / n),   p = exp(x'y / T) / Z

    with n the number of samples. The value is the sum of two of them, with the student's embedding
    as x and with the teacher's, times the teacher's weight for the sample. Z, one for each teacher
    and way, is n times the mean of exp(x'y / T) over the first batch and stays. After each step
    the memory of the batch's samples moves to y <- momentum y + (1 - momentum) x, of unit length.

    Samples are found by ``Batch.index``. Negatives are samples of other classes; of a sample
    without a label, any others. Of each step they depend on the stage's seed and the number of the
    step alone, so that a run which is resumed continues as it would have. A sample that the pass
    before training left out (as the last one of a shuffled epoch may be) counts from its second
    visit on. With several processes, the memories of all of them take in all embeddings.

    The memory takes 2 * n * size numbers for each teacher, 51 MB for 50,000 samples and 128 values;
    it is a part of checkpoints and of what the store keeps. A step adds n draws and about
    (b + size) * K values.

    Source: Tian, Krishnan and Isola, Contrastive Representation Distillation (arXiv 1910.10699),
    equations 9 to 19, and HobbitLong/RepDistiller @1fb2343 and @97c4c00 (crd/) for the memory, the
    constants and the weight of negatives. Deviations: one order of all samples is drawn for each
    step and a sample's negatives are the first K of other classes in it, where that code draws for
    each sample; where there are fewer they all count, once, and K is their number; nothing is
    added to denominators; memories start from unit vectors drawn at random; they change after the
    step and not in the loss; maps and sequences are averaged over their places.

    Args:
        student: the layer of the student, a list of one.
        teachers: the layer of the teachers, a list of one for all of them, or such a list for each.
        size: values of an embedding.
        negatives: K, at most.
        temperature: T, > 0.
        momentum: how much of a memory stays, in [0, 1).

    Raises:
        ValueError: an argument is out of range.
    """

    log_z: Tensor
    begun: Tensor

    def __init__(
        self,
        student: Sequence[str],
        teachers: Sequence[str] | Sequence[Sequence[str]],
        size: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.layers = Layers(student, teachers)
        if len(self.layers.student) != 1:
            raise ValueError(f"student must name one layer, got {list(student)}")
        self.layers.check_pairs()
        for name, value in (("size", size), ("negatives", negatives)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature must be a finite number > 0, got {temperature}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.size = size
        self.count = negatives
        self.temperature = temperature
        self.momentum = momentum
        self.heads = nn.ModuleList()
        self.memory = Memory(0, size)
        self.register_buffer("log_z", torch.zeros(0, 2))
        self.register_buffer("begun", torch.tensor(False))
        self.seed = 0
        self._met = 0
        self._brought: list[_Brought] = []

    def student_taps(self) -> tuple[str, ...]:
        """The layer of the student."""
        return self.layers.student

    def teacher_taps(self, number: int) -> tuple[str, ...]:
        """The layer of one teacher.

        Raises:
            ValueError: there are lists for fewer teachers.
        """
        return self.layers.of_teacher(number)

    def meet(self, student: Output, teachers: tuple[Output, ...]) -> None:
        """Make the heads and an empty memory."""
        self.layers.check_count(len(teachers))
        own = pooled(self._of_student(student)).shape[1]
        self.heads = nn.ModuleList(
            Heads(own, pooled(self._of_teacher(teacher, k)).shape[1], self.size)
            for k, teacher in enumerate(teachers)
        )
        self.memory = Memory(2 * len(teachers), self.size)
        self.log_z = torch.zeros(len(teachers), 2)
        self.begun = torch.tensor(False)
        self.seed = int(torch.randint(2**62, ()))

    def study(self, material: Material) -> None:
        """Find out which samples there are, and their labels.

        Raises:
            UserError: samples have no number or label of their own, or all are of one class.
        """
        batches = [(batch.index, batch.target) for batch in material.batches()]
        for _, target in batches:
            if target.ndim != 1:
                raise UserError(
                    "crd: expected one label for each sample, got targets of shape "
                    f"{tuple(target.shape)}"
                )
        numbers, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        order = numbers.argsort(stable=True)
        numbers, labels = numbers[order], labels[order]
        again = torch.zeros_like(numbers, dtype=torch.bool)
        again[1:] = numbers[1:] == numbers[:-1]
        unlike = again.clone()
        unlike[1:] &= labels[1:] != labels[:-1]
        if unlike.any():
            raise _unstable(int(numbers[unlike][0]))
        numbers, labels = numbers[~again], labels[~again]
        if material.whole and len(labels) and len(labels[labels != UNLABELLED].unique()) == 1:
            raise UserError(
                "crd: expected samples of several classes to contrast with each other, "
                f"got class {int(labels.max())} alone"
            )
        vectors = self.memory.vectors
        # Drawn on the CPU, so that no kind of device draws otherwise.
        drawn = unit(torch.randn(vectors.shape[0], len(numbers), self.size))
        self.memory.add(numbers, labels, drawn.to(vectors))
        self._met = len(numbers)

    def settle(self) -> None:
        """Take the embeddings of a step's batches into the memory.

        Raises:
            UserError: samples have no numbers of their own.
        """
        if not self._brought:
            return
        parts, self._brought = [list(part) for part in zip(*self._brought, strict=True)], []
        numbers, labels, fresh = (gathered(torch.cat(part)) for part in parts[:3])
        if not self.begun:
            log_totals, counts = (gathered(torch.stack(part)) for part in parts[3:])
            counted = counts.sum()
            if counted > 0:
                logs = log_totals.logsumexp(dim=0)
                self.log_z.copy_(logs - counted.to(logs).log() + math.log(len(self.memory)))
                self.begun.fill_(True)
        # A sample may come twice, as where two processes share a batch that is too small.
        distinct, inverse = numbers.unique(return_inverse=True)
        shares = nn.functional.one_hot(inverse, len(distinct)).to(fresh)
        means = torch.einsum("ik, ijd -> jkd", shares / shares.sum(dim=0), fresh)
        classes = torch.empty_like(distinct).scatter_(0, inverse, labels)
        rows, known = self.memory.find(distinct)
        self.memory.blend(rows[known], means[:, known], self.momentum)
        if not known.all():
            self.memory.add(distinct[~known], classes[~known], unit(means[:, ~known]))
            if len(self.memory) > 2 * self._met > 0:
                raise UserError(
                    f"crd: expected the samples of the training data under the same numbers in "
                    f"every epoch, met {self._met} in the first pass and as many others since"
                )

    def forward(
        self,
        student: Output,
        teachers: tuple[Output, ...],
        weights: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Tensor:
        """(b,) the weighted sum over teachers; zero for a sample that has no negatives.

        Raises:
            ValueError: the teachers are not those that were met, or a network gave no feature.
            UserError: a sample has another label than before.
        """
        if len(self.heads) != len(teachers) or not teachers:
            raise ValueError(
                f"features are compared with those of the {len(self.heads)} frozen teachers that "
                f"were met, got {len(teachers)} voices: this strategy cannot use them"
            )
        if self.layers.student[0] not in student.features:
            raise ValueError(
                f"the student gave no feature {self.layers.student[0]!r} under this strategy"
            )
        if not len(self.memory):
            raise ValueError("crd must look at the training data before it is used")
        rows, known = self.memory.find(batch.index)
        self._check_labels(rows, known, batch)
        order = draws(self.seed, progress.step, (len(self.memory),)).argsort()
        candidates, chosen = self.memory.negatives(rows, order.to(rows.device), self.count)
        chosen = chosen & known.unsqueeze(1)
        counted = chosen.sum() + chosen.any(dim=1).sum()
        embedded, log_totals, values = [], [], []
        for k, (heads, teacher) in enumerate(zip(self.heads, teachers, strict=True)):
            pair = heads(self._of_student(student), self._of_teacher(teacher, k))
            value = pair[0].new_zeros(len(rows))
            for way, anchor in enumerate(pair):
                # Each embedding meets the memory of the other head.
                bank = self.memory.vectors[2 * k + 1 - way].to(anchor)
                own = (anchor * bank[rows]).sum(dim=1) / self.temperature
                others = anchor @ bank[candidates].mT / self.temperature
                total = log_total(own, others, chosen)
                now = total - counted.clamp(min=1).to(total).log() + math.log(len(self.memory))
                log_z = torch.where(self.begun, self.log_z[k, way].to(now), now)
                value = value + contrast(own - log_z, others - log_z, chosen, len(self.memory))
                log_totals.append(total)
            embedded += [each.detach() for each in pair]
            values.append(value)
        if self.training:
            self._brought.append(
                _Brought(
                    batch.index,
                    batch.target,
                    torch.stack(embedded, dim=1),
                    torch.stack(log_totals).view(-1, 2),
                    counted,
                )
            )
        together = torch.stack(values)
        if weights.shape != together.shape:
            raise ValueError(
                f"weights must have the shape (teachers, samples) {tuple(together.shape)}, "
                f"got {tuple(weights.shape)}"
            )
        return (weights * together).sum(dim=0)

    def _check_labels(self, rows: Tensor, known: Tensor, batch: Batch) -> None:
        before = self.memory.labels[rows]
        both = known & (before != UNLABELLED) & (batch.target != UNLABELLED)
        unlike = both & (before != batch.target)
        if unlike.any():
            raise _unstable(int(batch.index[unlike][0]))

    def _of_student(self, said: Output) -> Tensor:
        return said.features[self.layers.student[0]]

    def _of_teacher(self, said: Output, number: int) -> Tensor:
        return said.features[self.layers.of_teacher(number)[0]]


class _Brought(NamedTuple):
    """What a batch brings to the memory: vectors (b, 2 m, size), logs of sums (m, 2)."""

    numbers: Tensor
    labels: Tensor
    vectors: Tensor
    log_totals: Tensor
    counted: Tensor


def _unstable(number: int) -> UserError:
    return UserError(
        f"crd: sample {number} has one label now and had another before: expected each sample "
        "under the same number in every epoch, as Batch.index has it"
    )

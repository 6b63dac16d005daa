"""Student-friendly teachers: a teacher that learns together with branches of its future student."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ensemble_kd.functional import kl
from ensemble_kd.networks.connector import Connector
from ensemble_kd.networks.cut import check_cut, cut, drop_trunk, resting
from ensemble_kd.networks.taps import listen
from ensemble_kd.objectives import Label, Term
from ensemble_kd.schedules import Positive
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn, as_output


class StudentFriendly(Strategy):
    """The network that learns is a teacher to be; upper parts of a student hang on its layers.

    A branch is what a student has from one of its layers on, behind an adapter on a layer of the
    teacher. Teacher and branches descend

    teacher_weight CE(y, z) + sum_k (soft_weight T^2 KL(p^T || q_k^T) + branch_weight CE(y, z_k))

    with z and p of the teacher, z_k and q_k of branch k. The teacher is not detached: its features
    and its outputs come towards what the branches can do. The branches are dropped at the end, and
    the student that is taught later starts from weights of its own.

    Source: Park et al., Learning Student-Friendly Teacher Networks for Knowledge Distillation
    (arXiv 2102.07650), section 3.2; weights 1, 3 and 1, temperature 1 and the adapter (a 1x1
    convolution, BatchNorm, ReLU) are recalled, not verified against the paper, of which only the
    beginning could be read. Deviations: which layers carry branches is the user's choice; maps of
    unlike size are interpolated in the adapter, and for vectors it has a linear layer; the upper
    parts of all branches begin with equal weights, those of one student.

    Args:
        student: a network like the one that will be taught; it is copied for the branches.
        inputs: shape of one sample.
        teacher_layers: layers of the teacher whose output the branches take, as ``networks.taps``
            names them.
        student_layers: for each of them, path of the first module of the branch in the student.
        teacher_weight: of the teacher's labels, >= 0.
        soft_weight: of each divergence of a branch from the teacher, >= 0.
        branch_weight: of each branch's labels, >= 0.
        temperature: T, of the divergences.

    Raises:
        ValueError: an argument is out of range, or there is not one student layer for each of the
            teacher's.
    """

    def __init__(
        self,
        student: nn.Module,
        inputs: Sequence[int],
        teacher_layers: Sequence[str],
        student_layers: Sequence[str],
        teacher_weight: float = 1.0,
        soft_weight: float = 3.0,
        branch_weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not teacher_layers or len(teacher_layers) != len(student_layers):
            raise ValueError(
                "student_layers must name one layer for each of teacher_layers, at least one, got "
                f"{list(student_layers)} for {list(teacher_layers)}"
            )
        if not (soft_weight >= 0 and math.isfinite(soft_weight)):
            raise ValueError(f"soft_weight must be a finite number >= 0, got {soft_weight}")
        self.inputs = tuple(inputs)
        self.teacher_layers = tuple(teacher_layers)
        self.student_layers = tuple(student_layers)
        self.soft_weight = soft_weight
        self.temperature = Positive(temperature, "temperature")(0.0)
        self.label = Term(Label(), teacher_weight)
        self.branch_label = Term(Label(), branch_weight)
        # A tuple: the student itself does not learn, only the parts of it that branches have.
        self._student = (student,)
        self.branches = nn.ModuleList()

    def meet(self, student: nn.Module) -> None:
        """Make the branches for the teacher's layers.

        Args:
            student: the network that learns, which is the teacher.

        Raises:
            UserError: a layer is not there, or the student cannot be cut.
            ValueError: a branch cannot be connected to its layer.
        """
        like = next(student.parameters())
        sample = torch.randn(2, *self.inputs, dtype=like.dtype, device=like.device)
        with torch.no_grad(), resting(student):
            said = listen(student, sample, self.teacher_layers)
        self.branches = nn.ModuleList(
            _branch(copy.deepcopy(self._student[0]).to(like), at, said.features[layer], sample)
            for layer, at in zip(self.teacher_layers, self.student_layers, strict=True)
        )
        with torch.no_grad(), resting(self.branches):
            first = as_output(self.branches[0](said.features[self.teacher_layers[0]]))
        if first.logits.shape != said.logits.shape:
            raise ValueError(
                f"the teacher must have the classes of the student, got {said.logits.shape[-1]} "
                f"beside {first.logits.shape[-1]}"
            )

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """One turn: the teacher and its branches step together."""
        if not self.branches:
            raise ValueError("the strategy must meet the network before it is used")
        said = listen(student, batch.inputs, self.teacher_layers)
        terms = {"label": self._labelled(self.label, said, batch, progress)}
        for number, branch in enumerate(self.branches, start=1):
            own = as_output(branch(said.features[self.teacher_layers[number - 1]]))
            apart = self.temperature**2 * kl(said.logits, own.logits, self.temperature)
            terms |= {
                f"branch/{number}/soft": self.soft_weight * apart.mean(),
                f"branch/{number}/label": self._labelled(self.branch_label, own, batch, progress),
            }
        yield Turn("student", terms)

    def _labelled(self, term: Term, said: Output, batch: Batch, progress: Progress) -> Tensor:
        weights = said.logits.new_empty(0, *said.logits.shape[:-1])
        value: Tensor = term(said, (), weights, batch, progress)
        return value


def _branch(student: nn.Module, at: str, feature: Tensor, sample: Tensor) -> nn.Sequential:
    """An adapter for a feature of the teacher, and what the student has from ``at`` on."""
    check_cut(student, at, sample)
    with torch.no_grad(), resting(student):
        expected = cut(student, at).trunk(sample)
    adapter = _adapter(feature, expected).to(sample)
    drop_trunk(student, at)
    return nn.Sequential(adapter, cut(student, at).head)


def _adapter(feature: Tensor, expected: Tensor) -> nn.Sequential:
    connector = Connector(feature, expected, bias=False)
    if expected.ndim == 4:
        norm: nn.Module = nn.BatchNorm2d(expected.shape[1])
    elif expected.ndim == 2:
        norm = nn.BatchNorm1d(expected.shape[1])
    else:
        raise ValueError(
            "a branch must begin where the student has maps (d, h, w) or vectors (d,), got "
            f"{tuple(expected.shape[1:])}"
        )
    return nn.Sequential(connector, norm, nn.ReLU())

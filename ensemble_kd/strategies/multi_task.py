"""One teacher for each task, one student for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ensemble_kd.build import Node
from ensemble_kd.functional import wide
from ensemble_kd.networks.multi_head import MultiHead, Tasked
from ensemble_kd.stage import Given, Stage, derived_seed
from ensemble_kd.strategies.samples import Samples, chosen
from ensemble_kd.strategies.strategy import Strategy
from ensemble_kd.teachers.ensemble import Ensemble
from ensemble_kd.types import Batch, Output, Progress, Turn
from ensemble_kd.weightings import Weighting


class MultiTask:
    """A teacher for each task, trained on its task's samples only; then a student of all of them.

    The data says of each sample which task it belongs to (``ensemble_kd.data.Tasks``). The student
    gets a head for each task (``MultiHead``). What it matches is up to the strategy; with
    ``Annealed`` and ``OfTask`` this is the paper's method.

    Source: Clark et al., BAM! Born-Again Multi-Task Networks for Natural Language Understanding
    (arXiv 1907.04829), section 3, where teachers are of the student's size. Deviations: every task
    has every sample here, so that nothing is left of the paper's sampling of tasks in proportion to
    their size to the power of 0.75, and there is one learning rate for all layers.

    Args:
        tasks: for each task, by name, the class there of each class of the data.
        networks: the teachers, one for all tasks (each its own copy) or one each.
        alone: how a teacher learns, as a node.

    Raises:
        ValueError: there are no tasks, or neither one network nor as many as tasks.
    """

    def __init__(
        self,
        tasks: Mapping[str, Sequence[int]] | None,
        networks: Sequence[Node],
        alone: Node,
    ) -> None:
        if not tasks:
            raise ValueError("tasks must be those of the data, got none: choose data=digits_tasks")
        if len(networks) not in (1, len(tasks)):
            raise ValueError(
                f"networks must be one for all tasks or {len(tasks)}, one for each, "
                f"got {len(networks)}"
            )
        self.names = tuple(f"teacher/{name}" for name in tasks)
        self.classes = [max(classes) + 1 for classes in tasks.values()]
        self.networks = list(networks) * (len(tasks) if len(networks) == 1 else 1)
        self.alone = alone

    def stages(self, last: Stage) -> tuple[Stage, ...]:
        """A teacher for each task, such as ``teacher/parity``, and the student."""
        chain = []
        for number, (name, network) in enumerate(zip(self.names, self.networks, strict=True)):
            specialist = {"_target_": f"{__name__}.OneTask", "task": number, "inner": self.alone}
            chain.append(
                replace(
                    last,
                    name=name,
                    student=self._heads(network, number),
                    teachers=(),
                    strategy=specialist,
                    optimizers={"default": last.optimizers["default"]},
                    ensemble=None,
                    seed=derived_seed(last.seed, name),
                )
            )
        own = last.student if isinstance(last.student, Given) else self._heads(last.student)
        return *chain, replace(last, student=own, teachers=self.names)

    def mixtures(self) -> dict[str, tuple[str, ...]]:
        """``specialists``: each sample's answer is that of the teacher of its task.

        The others find all classes of the task equally likely, so that the mean has the answers of
        the one teacher, with less confidence.
        """
        return {"specialists": self.names}

    def _heads(self, network: Node, only: int | None = None) -> dict[str, Any]:
        path = f"{MultiHead.__module__}.{MultiHead.__qualname__}"
        return {"_target_": path, "network": network, "tasks": self.classes, "only": only}


class OneTask(Strategy):
    """Another strategy, on the samples of one task only.

    Args:
        task: number of the task.
        inner: what is done with its samples.
    """

    def __init__(self, task: int, inner: Strategy) -> None:
        super().__init__()
        self.task = task
        self.inner = inner
        self.views = inner.views

    def meet(self, student: nn.Module) -> None:
        """That of the inner strategy."""
        self.inner.meet(student)

    def begin(self, student: nn.Module, teachers: Ensemble) -> None:
        """That of the inner strategy."""
        self.inner.begin(student, teachers)

    def players(self, student: nn.Module) -> dict[str, list[nn.Parameter]]:
        """Those of the inner strategy."""
        return self.inner.players(student)

    def predictors(self, student: nn.Module) -> dict[str, nn.Module]:
        """Those of the inner strategy."""
        return self.inner.predictors(student)

    def learners(self, student: nn.Module) -> dict[str, nn.Module]:
        """Those of the inner strategy."""
        return self.inner.learners(student)

    def deliverable(self, student: nn.Module) -> nn.Module:
        """That of the inner strategy."""
        return self.inner.deliverable(student)

    def turns(
        self, student: nn.Module, teachers: Ensemble, batch: Batch, progress: Progress
    ) -> Iterator[Turn]:
        """The moves of the inner strategy.

        Raises:
            ValueError: the samples carry no task.
        """
        yield from self.inner.turns(student, teachers, self._own(batch, batch), progress)

    def validated(self, said: Mapping[str, Output], batch: Batch, progress: Progress) -> None:
        """That of the inner strategy, on the samples of the task."""
        own = {name: self._own(output, batch) for name, output in said.items()}
        self.inner.validated(own, self._own(batch, batch), progress)

    def _own(self, samples: Samples, batch: Batch) -> Samples:
        return chosen(samples, task_of(batch) == self.task)


class OfTask(Weighting):
    """Each sample is taught by one teacher: number t for task number t."""

    def forward(
        self, teachers: tuple[Output, ...], student: Output, batch: Batch, progress: Progress
    ) -> Tensor:
        """(m, b), one for the teacher of the sample's task and zero for the others.

        Raises:
            ValueError: the samples carry no task, or there is no teacher for one.
        """
        task = task_of(batch)
        if len(task) and int(task.max()) >= len(teachers):
            raise ValueError(
                f"there must be a teacher for each task, got {len(teachers)} for task "
                f"{int(task.max())}"
            )
        return F.one_hot(task, len(teachers)).T.to(wide(student.logits.new_empty(0)))


def task_of(batch: Batch) -> Tensor:
    """(b,) int64, the number of each sample's task.

    Raises:
        ValueError: the samples carry none.
    """
    if not isinstance(batch.inputs, Tasked):
        raise ValueError(
            "inputs must carry the task of each sample, got "
            f"{type(batch.inputs).__name__}: choose data=digits_tasks"
        )
    return batch.inputs.task

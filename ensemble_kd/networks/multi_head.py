"""One network with a head for each of several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ensemble_kd.types import as_output

SILENT = -1e4
"""Logit of a class of another task: its probability is zero in float32, also softened by T = 50."""


class Tasked(NamedTuple):
    """Inputs of samples that belong to different tasks.

    Attributes:
        inputs: what an ordinary network takes; its first axis is b.
        task: (b,) int64, the number of each sample's task.
    """

    inputs: Any
    task: Tensor


class MultiHead(nn.Module):
    """A network of which, for each sample, only the head of the sample's task is heard.

    The classes of all tasks are numbered through: first those of task 0, then those of task 1 and
    so on. The network's classifier gives logits for all of them; its rows for the classes of one
    task are that task's head. The logits of other tasks' classes are ``SILENT``, so that losses on
    probabilities, their gradients, and accuracy are those of the sample's own task.

    Args:
        network: takes ``Tasked.inputs`` and gives logits (b, c) for the classes of all tasks.
        tasks: number of classes of each task.
        only: number of the one task that it has learned; for samples of other tasks it calls all
            classes of their task equally likely. None: it answers for all of them.

    Raises:
        ValueError: a task has fewer than two classes, or ``only`` is none of the tasks.
    """

    owner: Tensor

    def __init__(self, network: nn.Module, tasks: Sequence[int], only: int | None = None) -> None:
        super().__init__()
        if not tasks or min(tasks) < 2:
            raise ValueError(f"tasks must be numbers of classes >= 2, got {list(tasks)}")
        if only is not None and not 0 <= only < len(tasks):
            raise ValueError(f"only must be in 0..{len(tasks) - 1}, got {only}")
        self.network = network
        self.tasks = tuple(tasks)
        self.only = only
        owner = torch.arange(len(tasks)).repeat_interleave(torch.tensor(list(tasks)))
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, inputs: Tasked) -> Tensor:
        """(b, c) logits, those of other tasks' classes ``SILENT``.

        Raises:
            TypeError: the inputs carry no task.
        """
        samples, task = _parts(inputs)
        logits = as_output(self.network(samples)).logits
        task = task.unsqueeze(-1)
        if self.only is not None:
            logits = torch.where(task == self.only, logits, logits.new_zeros(()))
        return torch.where(task == self.owner, logits, logits.new_full((), SILENT))


def _parts(inputs: Any) -> Tasked:
    if not isinstance(inputs, tuple) or len(inputs) != 2:
        raise TypeError(
            f"a network with several heads needs inputs and the task of each sample, got "
            f"{type(inputs).__name__}"
        )
    return Tasked(*inputs)

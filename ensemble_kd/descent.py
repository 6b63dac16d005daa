"""How a player descends: optimiser, learning-rate schedule, clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ensemble_kd.schedules import Constant, Schedule


class Descent:
    """An optimiser and its schedule, completed where the parameters are known.

    Args:
        lr: peak learning rate, > 0.
        optimizer: makes the optimiser from parameters and ``lr``.
        schedule: factor on ``lr`` as a function of the stage's progress; constant if not given.
        clip: largest L2 norm of the player's gradient; not clipped if not given.
    """

    def __init__(
        self,
        lr: float,
        optimizer: Callable[..., Optimizer],
        schedule: Schedule | None = None,
        clip: float | None = None,
    ) -> None:
        if not 0 < lr < float("inf"):
            raise ValueError(f"lr must be a finite number > 0, got {lr}")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be > 0, got {clip}")
        self.lr = lr
        self.optimizer = optimizer
        self.schedule = schedule or Constant()
        self.clip = clip

    def start(
        self, parameters: Iterable[nn.Parameter], total_steps: int
    ) -> tuple[Optimizer, LambdaLR]:
        """The optimiser of a player and the scheduler that is stepped after each of its steps.

        Args:
            parameters: what the player steps.
            total_steps: how many steps the stage has.
        """
        optimizer = self.optimizer(list(parameters), lr=self.lr)
        steps = max(total_steps, 1)
        return optimizer, LambdaLR(optimizer, lambda step: self.schedule(min(step / steps, 1.0)))

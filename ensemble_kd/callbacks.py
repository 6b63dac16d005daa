"""What happens beside a training: weights that are written or kept after an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.files import flush
from ensemble_kd.module import DistillationModule


class Snapshots(Callback):
    """Writes the student's weights after every epoch, as ``epoch-0000.safetensors`` and so on.

    They are on the disk for certain when the next epoch starts: a checkpoint counts on them.

    Args:
        folder: the artefact that is being written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the weights as they are now.

        Raises:
            UserError: the file system refuses.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_model

        if not trainer.is_global_zero:
            return
        path = self.folder / f"epoch-{trainer.current_epoch:04d}.safetensors"
        try:
            save_model(cast(DistillationModule, pl_module).deliverable(), str(path))
            flush(path)
        except (OSError, SafetensorError) as failure:
            path.unlink(missing_ok=True)
            raise UserError(f"cannot write {path}: {' '.join(str(failure).split())}") from failure


class Attendance(Callback):
    """Tells a strategy when its training begins in a process, or goes on there, and when it ends.

    It belongs behind whatever changes the weights when a training ends.

    Args:
        data: digest of the data.
    """

    def __init__(self, data: str) -> None:
        self.data = data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything is as it will be at the first step."""
        module = cast(DistillationModule, pl_module)
        module.strategy.enter(module.student, module.steps_taken, self.data)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The weights are those that will be kept."""
        module = cast(DistillationModule, pl_module)
        module.strategy.leave(module.student, module.steps_taken)


class BestWeights(Callback):
    """Ends a training with the weights of the epoch whose validation metric was best.

    Args:
        metric: the metric, larger is better; the first of equals counts.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.best = float("-inf")
        self.state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the weights when they are the best so far."""
        value = float(trainer.callback_metrics[self.metric])
        if value > self.best:
            self.best = value
            self.state = {k: v.clone() for k, v in pl_module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """The best so far, for a checkpoint."""
        return {"best": self.best, "state": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best of a training that was cut off."""
        self.best, self.state = state_dict["best"], state_dict["state"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the best weights back."""
        if not self.state:
            raise UserError(
                "select=best: expected a validation after some epoch, got none: see "
                "trainer.check_val_every_n_epoch and epochs"
            )
        pl_module.load_state_dict(self.state)

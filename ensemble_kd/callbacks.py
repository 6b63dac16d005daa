"""What happens beside a training: weights that are written or kept after an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ensemble_kd.errors import UserError
from ensemble_kd.module import DistillationModule


class Snapshots(Callback):
    """Writes the student's weights after every epoch, as ``epoch-0000.safetensors`` and so on.

    Args:
        folder: the artefact that is being written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the weights as they are now."""
        from safetensors.torch import save_model

        if trainer.is_global_zero:
            path = self.folder / f"epoch-{trainer.current_epoch:04d}.safetensors"
            save_model(cast(DistillationModule, pl_module).deliverable(), str(path))


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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the best weights back."""
        if not self.state:
            raise UserError(
                "select=best: expected a validation after some epoch, got none: see "
                "trainer.check_val_every_n_epoch and epochs"
            )
        pl_module.load_state_dict(self.state)

"""Lightning's trainer: made from its group, and run so that its failures are single lines."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.profilers import PassThroughProfiler
from torch.multiprocessing.spawn import ProcessRaisedException

from ensemble_kd.build import build
from ensemble_kd.errors import UserError
from ensemble_kd.precision import MIXED, SINGLE

OURS = {
    "max_epochs": "use epochs, or teacher.epochs",
    "callbacks": "a strategy or a stage brings its own",
    "logger": "use the group logger",
}
"""Arguments of the trainer that the stage engine gives, and what a user sets instead."""

UNUSED = "that were not used in producing the loss"
"""What torch says when processes wait for a gradient that never comes."""


class _Unprofiled(PassThroughProfiler):
    """Measures nothing, and takes no time for it: the trainer asks dozens of times in each step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """A context that does nothing."""
        return self._nothing


class Interrupted(KeyboardInterrupt):
    """Ctrl-C reached a stage that was being trained; its name is the message."""


def make_trainer(
    node: Mapping[str, Any],
    epochs: int,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Any] = (),
    allow: Sequence[str] = (),
) -> Trainer:
    """A trainer for one stage.

    Args:
        node: the group ``trainer``.
        epochs: passes over the training split.
        callbacks: Lightning callbacks.
        loggers: Lightning loggers.
        allow: packages beside this project's that the node may name.

    Raises:
        UserError: a setting is not possible, here or on this machine.
    """
    for key, instead in OURS.items():
        if key in node:
            raise UserError(f"trainer.{key}: set by the stage engine, got {node[key]!r}; {instead}")
    # No other of Lightning's: weights and losses are always float32.
    precision = node.get("precision") or SINGLE
    if precision not in (SINGLE, *MIXED, 32, "32"):
        raise UserError(
            f"trainer.precision: expected one of {', '.join((SINGLE, *MIXED))}, got {precision!r}"
        )
    accumulated = node.get("accumulate_grad_batches", 1)
    if isinstance(accumulated, int) and accumulated < 1:
        raise UserError(f"trainer.accumulate_grad_batches: expected 1 or more, got {accumulated}")
    make = build(node, "trainer", allow)
    if node.get("profiler") is None:
        make = partial(make, profiler=_Unprofiled())
    strategy = node.get("strategy") or "auto"
    if node.get("plugins") is None and ("spawn" in str(strategy) or strategy == "auto"):
        # One process starts the others itself: the tasks of a SLURM job are not its ranks.
        make = partial(make, plugins=[LightningEnvironment()])
    try:
        with _quiet():
            trainer: Trainer = make(
                max_epochs=epochs, callbacks=list(callbacks), logger=list(loggers) or False
            )
    except (MisconfigurationException, ValueError, TypeError) as refusal:
        raise UserError(f"trainer: {' '.join(str(refusal).split())}") from refusal
    if precision == "16-mixed" and isinstance(trainer.accelerator, CPUAccelerator):
        # Lightning takes bfloat16 instead, from when processors could not do this.
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu")
    return trainer


def fit(trainer: Trainer, module: LightningModule, data: LightningDataModule, stage: str) -> None:
    """Train a module.

    Args:
        trainer: from ``make_trainer``.
        module: what is trained, in place.
        data: serves training and validation batches.
        stage: its name, for messages.

    Raises:
        UserError: the trainer refuses its settings.
        Interrupted: Ctrl-C.
    """
    try:
        with _quiet():
            trainer.fit(module, datamodule=data)
    except MisconfigurationException as refusal:
        raise UserError(f"trainer: {' '.join(str(refusal).split())}") from refusal
    except (RuntimeError, ProcessRaisedException) as failure:
        if UNUSED not in str(failure):
            raise
        raise UserError(
            f"stage {stage}: some of its parameters receive no gradient, of which processes must "
            "be told: trainer.strategy=ddp_spawn_find_unused_parameters_true"
        ) from failure
    except SystemExit as stopped:
        # Lightning turns Ctrl-C into an exit and ignores further signals.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Interrupted(stage) from stopped


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notes on devices, its advice and its own deprecations off the terminal.

    So too its advice to start runs by SLURM on a machine that has it, what it says of float16 on
    processors, which ``make_trainer`` sees to, and what torch says of the order of steps, when a
    scaler of gradients leaves out the first ones as it may.
    """
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
            warnings.filterwarnings("ignore", ".*AMP with fp16 is not supported on CPU")
            warnings.filterwarnings("ignore", ".*The `srun` command is available on your system")
            warnings.filterwarnings("ignore", ".*overridden `transfer_batch_to_device`")
            warnings.filterwarnings("ignore", ".*`lr_scheduler.step..` before `optimizer.step")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

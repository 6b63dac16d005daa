"""Lightning's trainer: made from its group, and run so that its failures are single lines."""

from __future__ import annotations

import logging
import re
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.profilers import PassThroughProfiler
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from ensemble_kd.build import build
from ensemble_kd.distributed.spread import expect_no_command_again, spread
from ensemble_kd.errors import UserError
from ensemble_kd.module import DistillationModule
from ensemble_kd.precision import MIXED, SINGLE

OURS = {
    "max_epochs": "use epochs, or teacher.epochs",
    "callbacks": "a strategy or a stage brings its own",
    "logger": "use the group logger",
}
"""Arguments of the trainer that the stage engine gives, and what a user sets instead."""

REFUSED = {
    "`val_check_interval`": "trainer.val_check_interval",
    "does not support dense gradients": "optimizer",
}
"""What is said, where it can be known only now, of a setting that is not possible, by its key."""

UNUSED = "that were not used in producing the loss"
"""What torch says when processes wait for a gradient that never comes."""


SAID = re.escape(f"{UserError.__module__}.{UserError.__qualname__}:")
"""What stands before the message of a ``UserError`` in the traceback of another process."""


MOST_DEVICES = 10_000
"""Of one machine: Lightning lists them before it looks for any."""


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
    apart: bool = False,
) -> Trainer:
    """A trainer for one stage.

    Args:
        node: the group ``trainer``.
        epochs: passes over the training split.
        callbacks: Lightning callbacks.
        loggers: Lightning loggers.
        allow: packages beside this project's that the node may name.
        apart: each of the processes that were started together trains a network of its own.

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
    for key in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        if isinstance(node.get(key), int) and node[key] < 1:
            raise UserError(f"trainer.{key}: expected 1 or more, got {node[key]}")
    node, environment = spread(node, apart)
    devices = node.get("devices")
    if isinstance(devices, int) and devices > MOST_DEVICES:
        raise UserError(f"trainer.devices: expected at most {MOST_DEVICES}, got {devices}")
    make = build(node, "trainer", allow)
    if not callable(make):
        raise UserError(f"trainer: expected what makes a trainer (_partial_: true), got {make!r}")
    if node.get("profiler") is None:
        make = partial(make, profiler=_Unprofiled())
    if node.get("plugins") is None:
        # Lightning would take the tasks of any SLURM job for processes of this run.
        make = partial(make, plugins=[environment])
    try:
        with _quiet():
            trainer: Trainer = make(
                max_epochs=epochs, callbacks=[_Company(), *callbacks], logger=list(loggers) or False
            )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as refusal:
        raise UserError(f"trainer: {' '.join(str(refusal).split())}") from refusal
    expect_no_command_again(trainer)
    if node.get("sync_batchnorm") and isinstance(trainer.accelerator, CPUAccelerator):
        raise UserError("trainer.sync_batchnorm: expected false on processors: torch refuses it")
    if precision == "16-mixed" and isinstance(trainer.accelerator, CPUAccelerator):
        # Lightning takes bfloat16 instead, from when processors could not do this.
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu")
    return trainer


def fit(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule,
    stage: str,
    checkpoint: Path | None = None,
) -> None:
    """Train a module.

    Args:
        trainer: from ``make_trainer``.
        module: what is trained, in place.
        data: serves training and validation batches.
        stage: its name, for messages.
        checkpoint: where an earlier attempt was cut off; None to begin at the beginning.

    Raises:
        UserError: the trainer refuses its settings, or a process that it started has failed so, or
            was killed.
        Interrupted: Ctrl-C, or SIGTERM.
    """
    try:
        with _quiet():
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            if trainer.received_sigterm:  # after the last batch: the trainer did not look again
                raise Interrupted(stage)
    except MisconfigurationException as refusal:
        raise UserError(f"trainer: {' '.join(str(refusal).split())}") from refusal
    except ProcessExitedException as failure:
        raise UserError(
            f"stage {stage}: process {failure.error_index} of {trainer.world_size} was ended by "
            f"{failure.signal_name or failure.exit_code}; the same command goes on from there"
        ) from failure
    except (RuntimeError, ValueError, ProcessRaisedException) as failure:
        if isinstance(failure, UserError):
            raise
        for words, key in REFUSED.items():
            if words in str(failure):
                raise UserError(f"{key}: {' '.join(str(failure).split())}") from failure
        said = re.search(rf"^{SAID} (.*)$", str(failure), re.MULTILINE)
        if isinstance(failure, ProcessRaisedException) and said:
            raise UserError(said[1]) from failure
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


class _Company(Callback):
    """What processes that train together need.

    Those that a trainer starts get this by unpickling, before they do anything that Lightning talks
    about, and are then as quiet as the process that started them. All end at once when they are
    told to: Lightning would have them tell each other first, of whom one may be gone.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _quiet_company, ()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning has its own answer to SIGTERM by now, until the training ends."""
        if distributed.is_available() and distributed.is_initialized():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All validate what will be kept: with the averages of BatchNorm of the first process."""
        if trainer.world_size > 1:
            for network in cast(DistillationModule, pl_module).predictors().values():
                for buffer in network.buffers():
                    distributed.broadcast(buffer, src=0)


def _quiet_company() -> _Company:
    for logger in _talkative():
        logger.setLevel(logging.WARNING)
    _ignore_advice()
    return _Company()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notes on devices, its advice and its own deprecations off the terminal."""
    loggers = _talkative()
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            _ignore_advice()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _talkative() -> list[logging.Logger]:
    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
    return [logging.getLogger(name) for name in names]


def _ignore_advice() -> None:
    """Ignore what Lightning warns of without need.

    So too its advice to start runs by SLURM on a machine that has it, what it says of float16 on
    processors, which ``make_trainer`` sees to, and what torch says of the order of steps, when a
    scaler of gradients leaves out the first ones as it may.
    """
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
    warnings.filterwarnings("ignore", ".*AMP with fp16 is not supported on CPU")
    warnings.filterwarnings("ignore", ".*The `srun` command is available on your system")
    warnings.filterwarnings("ignore", ".*overridden `transfer_batch_to_device`")
    # Where each process trains by itself, means are its own.
    warnings.filterwarnings("ignore", ".*recommended to use `self.log.*sync_dist=True")
    # Ours are: see Checkpointing.
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable")
    warnings.filterwarnings("ignore", ".*`lr_scheduler.step..` before `optimizer.step")

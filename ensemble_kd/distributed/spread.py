"""Over which processes a trainer spreads a stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch.cuda import is_available

from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError

STARTING = re.compile("_(spawn|fork|notebook)")
"""What the name of a strategy holds that starts processes for each stage."""


def spread(
    node: Mapping[str, Any], apart: bool = False
) -> tuple[dict[str, Any], ClusterEnvironment]:
    """A trainer's node as this process needs it, and what tells the trainer of the others.

    In a group of processes that were started together, such as by torchrun, a stage is trained by
    these: ``ddp_spawn`` becomes ``ddp``, and no process is started.

    Args:
        node: the group ``trainer``.
        apart: each process of a group trains a network of its own, on one device.

    Raises:
        UserError: the trainer has not as many devices as there are processes.
    """
    whole, size = ranks.environment(), ranks.size()
    devices, nodes = _count(node.get("devices", 1)), node.get("num_nodes", 1)
    if whole is None:
        if nodes != 1:
            raise UserError(
                f"trainer.num_nodes: expected 1 in a run of one process, got {nodes}: torchrun or "
                "srun starts processes on several machines"
            )
        return dict(node), LightningEnvironment()
    if devices is not None and devices * nodes != size:
        raise UserError(
            f"trainer.devices, trainer.num_nodes: expected {size} devices in all, one for each of "
            f"the processes that were started together, got {devices} * {nodes} (trainer=ddp has "
            "more than one)"
        )
    if apart:
        graphics = node.get("accelerator", "auto") in ("auto", "gpu", "cuda") and is_available()
        one = [whole.local_rank()] if graphics else 1
        alone = {**node, "strategy": "auto", "devices": one, "num_nodes": 1}
        return alone, LightningEnvironment()
    strategy = node.get("strategy")
    if isinstance(strategy, str):
        return {**node, "strategy": STARTING.sub("", strategy)}, whole
    return dict(node), whole


def expect_no_command_again(trainer: Trainer) -> None:
    """The trainer must not start the whole command again for each device, as some would.

    Raises:
        UserError: it would.
    """
    if ranks.size() == 1 and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        count = trainer.num_devices
        raise UserError(
            "trainer.strategy: expected processes that were started together, got one: torchrun "
            f"--standalone --nproc-per-node {count} -m ensemble_kd ..., or "
            "trainer.strategy=ddp_spawn, which starts them itself"
        )


def _count(devices: Any) -> int | None:
    """How many devices a setting means, where it says so without a look at the machine."""
    if isinstance(devices, list):
        return len(devices)
    return devices if isinstance(devices, int) and devices > 0 else None

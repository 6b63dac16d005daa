"""Networks that are spread over processes, of which each keeps a share of every weight."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from pytorch_lightning import Trainer
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ensemble_kd.errors import UserError
from ensemble_kd.module import DistillationModule
from ensemble_kd.strategies.strategy import learning, objectives
from ensemble_kd.teachers import Ensemble, Foreign, Numbered
from ensemble_kd.weightings import Weighting

if TYPE_CHECKING:
    from ensemble_kd.stage import Stage
    from ensemble_kd.training import Learner

IMPOSSIBLE = (
    "mixed torch.Tensor and DTensor",
    "does not support deepcopy",
    "FSDP state has already been lazily initialized",
    "does not have a sharding strategy registered",
)
"""What torch says where weights are used otherwise than by calling a whole network."""


class Sharded(ModelParallelStrategy):
    """Data-parallel training where every network, its gradients and its optimiser are shared out.

    Each network that learns, each teacher that answers live and each objective or weighting that
    learns is one unit of torch's ``fully_shard``: its weights are put together when it is called,
    and let go of again. The processes must have been started together, such as by torchrun.
    """

    def __init__(self) -> None:
        super().__init__(
            data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def setup_environment(self) -> None:
        """Connect, and lay out all processes in one row."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Share the networks out, then make the optimisers of the shares."""
        if self.accelerator is None:
            raise RuntimeError("expected an accelerator, got none")
        self.accelerator.setup(trainer)
        shard(cast(DistillationModule, self.lightning_module), self.device_mesh["data_parallel"])
        self.model_to_device()
        self.barrier()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()


def shard(module: DistillationModule, mesh: DeviceMesh) -> None:
    """Share out what a module trains and hears, in place.

    Args:
        module: of a learner and of teachers that nobody else uses: see ``copies``.
        mesh: the processes, in one row.

    Raises:
        UserError: something trains that is no part of a network, an objective or a weighting.
    """
    strategy = module.strategy
    weightings = [part for part in strategy.modules() if isinstance(part, Weighting)]
    for network in learning(strategy, module.student):
        fully_shard(network, mesh=mesh)
    for part in (*objectives(strategy), *weightings):
        if _whole(part):
            fully_shard(part, mesh=mesh)
    if left := [*_whole(module.student), *_whole(strategy)]:
        raise UserError(
            f"trainer.strategy: {type(strategy).__name__} trains weights that are no part of a "
            f"network, such as {left[0]}, which cannot be shared out: trainer=ddp"
        )
    if type(module.teachers) is not Ensemble:
        return
    for teacher in module.teachers.teachers:
        own = teacher.network
        if teacher.home is None and any(True for _ in own.parameters()) and not _foreign(own):
            # Nobody asks for its weights again before the next batch.
            fully_shard(own, mesh=mesh, reshard_after_forward=True)


def is_sharded(trainer: Mapping[str, Any]) -> bool:
    """Whether a trainer's node asks for networks that are shared out."""
    strategy = trainer.get("strategy")
    return isinstance(strategy, Mapping) and strategy.get("_target_") == SHARDED


SHARDED = f"{Sharded.__module__}.{Sharded.__qualname__}"


def copies(stage: Stage, learner: Learner, teachers: Ensemble) -> tuple[Learner, Ensemble]:
    """A learner and teachers to be shared out: networks never become whole again in place.

    Teachers that look their answers up, or answer in a faster way, are not shared out.

    Raises:
        UserError: something of the stage is not possible with such networks.
    """
    if stage.compiled:
        raise UserError("compile: expected false with trainer=fsdp, got true")
    if stage.snapshots:
        raise UserError(
            f"stage {stage.name}: its network is kept after each epoch, which needs it whole: "
            "trainer=ddp"
        )
    known: dict[int, Any] = {} if type(teachers) is Ensemble else {id(teachers): teachers}
    copied: tuple[Learner, Ensemble] = copy.deepcopy((learner, teachers), known)
    return copied


def collect(learner: Learner, trained: Learner) -> None:
    """Give a learner the weights of its copy that was shared out, in every process.

    Buffers, such as the averages of BatchNorm, are those of the first process.
    """
    learner.student.load_state_dict(_collected(trained.student))
    learner.strategy.load_state_dict(_collected(trained.strategy))


@contextmanager
def explained(stage: Stage) -> Iterator[None]:
    """Say in one line that networks are used in a way that needs them whole.

    Raises:
        UserError: they are.
    """
    try:
        yield
    except (AssertionError, NotImplementedError, RuntimeError) as failure:
        if not any(words in str(failure) for words in IMPOSSIBLE):
            raise
        raise UserError(
            f"stage {stage.name}: its strategy uses weights otherwise than by calling a whole "
            "network, which cannot be shared out: trainer=ddp"
        ) from failure


def _collected(module: nn.Module) -> dict[str, Any]:
    return {name: _one(value) for name, value in module.state_dict().items()}


def _one(value: Any) -> Any:
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Tensor):
        same = value.detach().clone()
        distributed.broadcast(same, src=0)
        return same.cpu()
    return value


def _whole(part: nn.Module) -> list[str]:
    """Names of the weights that learn and are not shared out."""
    return [
        name
        for name, weight in part.named_parameters()
        if weight.requires_grad and not isinstance(weight, DTensor)
    ]


def _foreign(network: nn.Module) -> bool:
    return any(isinstance(part, Foreign | Numbered) for part in network.modules())

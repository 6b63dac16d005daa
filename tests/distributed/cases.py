"""Small trainings, done by one process or by the processes that torchrun starts.

``python -m torch.distributed.run --standalone --nproc-per-node 2 cases.py FOLDER`` does each of
them as ``trainer=ddp`` and as ``trainer=fsdp`` and writes what each process ends with.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ensemble_kd.config import compose, plain
from ensemble_kd.data import InMemory, Noise, Parts, Samples
from ensemble_kd.distributed import ranks
from ensemble_kd.errors import UserError
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import Linear
from ensemble_kd.stage import Stage
from ensemble_kd.strategies import Codistillation, Mutual, Parallel, Strategy
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.training import Learner, train
from ensemble_kd.weightings import Learned, Uniform

CLASSES = 3
STEP = 16
"""Samples of an optimiser step, whoever shares them."""


class Drawn:
    """Three classes of vectors, 128 of them: 90 to learn from, 19 to validate and to test."""

    mean = 0.0
    std = 1.0

    def load(self) -> Parts:
        rng = np.random.default_rng(0)
        labels = np.arange(128) % CLASSES
        inputs = rng.normal(size=(128, 6)) + labels[:, None]
        return Parts(Samples(inputs.astype(np.float32), labels), None, CLASSES)


class Case(NamedTuple):
    """A strategy, and what is not as usual: settings of the data, the trainer, the optimiser.

    ``unused``: not every backward pass reaches every weight.
    """

    strategy: Callable[[], Strategy]
    data: Mapping[str, Any] = MappingProxyType({})
    trainer: Mapping[str, Any] = MappingProxyType({})
    clip: float | None = None
    select: str = "last"
    unused: bool = False


class Done(NamedTuple):
    """Weights of the student and of the strategy by name, and what each epoch logged."""

    weights: dict[str, Tensor]
    rows: list[dict[str, float]]


def network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def terms() -> dict[str, Term]:
    return {
        "label": Term(Label(), 0.5, Linear(1.0, 0.2)),
        "soft": Term(Soft(temperature=2.0), 0.5, Linear(0.2, 1.0)),
    }


def parallel() -> Strategy:
    return Parallel(terms(), Uniform())


def gated() -> Strategy:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Parallel(terms(), Learned(CLASSES))


CASES = {
    "parallel": Case(parallel),
    "partly_labelled_and_an_odd_last_batch": Case(parallel, {"labelled": 20, "drop_last": False}),
    "best_epoch": Case(parallel, select="best"),
    "accumulated": Case(parallel, {"drop_last": False}, {"accumulate_grad_batches": 2}),
    "clipped": Case(parallel, clip=0.1),
    "gate_that_learns": Case(gated),
    "mutual": Case(lambda: Mutual([network(1)], terms(), Uniform()), clip=0.2, unused=True),
    "sequential": Case(lambda: Mutual([network(1)], terms(), Uniform(), "sequential"), unused=True),
    "codistillation": Case(
        lambda: Codistillation([network(1)], terms(), Uniform(), burn_in=1, partition="same")
    ),
}

SHARED_OUT = ("best_epoch", "accumulated", "clipped", "gate_that_learns", "mutual")
"""Those that ``trainer=fsdp`` repeats."""

COPYING = "codistillation"
"""Copies the weights of a peer, which needs them whole."""


class Logged(Callback):
    """The metrics of each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows.append({name: float(mean) for name, mean in trainer.callback_metrics.items()})


def trained(case: Case, option: str, processes: int = 1) -> Done:
    """Two epochs of a case, as one of so many processes.

    Args:
        case: what is trained.
        option: of the group ``trainer``.
        processes: share the samples of each step.
    """
    node = plain(compose([f"trainer={option}"]).trainer, "trainer")
    node = {**node, "accelerator": "cpu", **case.trainer}
    if case.unused and option == "ddp":
        node["strategy"] += "_find_unused_parameters_true"
    parts = processes * node["accumulate_grad_batches"]
    settings = {"augment": Noise(0.3), "val_share": 0.15, "test_share": 0.15, **case.data}
    data = InMemory(cast(Any, Drawn()), batch_size=STEP // parts, seed=3, **settings)
    data.prepare_data()
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.9}
    cosine = {"_target_": "ensemble_kd.schedules.Cosine", "warmup": 0.1}
    descent: dict[str, Any] = {"_target_": "ensemble_kd.descent.Descent", "lr": 0.2}
    descent |= {"optimizer": sgd, "schedule": cosine, "clip": case.clip}
    stage = Stage(
        name="student",
        student={},
        teachers=(),
        strategy={},
        optimizers={"default": descent},
        trainer=node,
        data="",
        labelled_only=False,
        epochs=2,
        select=case.select,
        seed=0,
    )
    learner = Learner(network(0), case.strategy())
    learner.strategy.meet(learner.student)
    teachers = Ensemble([Frozen(network(10)), Frozen(network(11))])
    logged = Logged()
    train(stage, learner, teachers, data, CLASSES, [logged], [])
    both = nn.ModuleDict({"student": learner.student, "strategy": learner.strategy})
    assert all(type(weight) is nn.Parameter for weight in both.parameters())
    return Done(both.state_dict(), logged.rows)


def heard() -> dict[str, Any]:
    """What the processes of a group tell each other."""
    entered: list[str] = []

    @contextmanager
    def noting() -> Iterator[int]:
        entered.append("in")
        yield ranks.rank()
        entered.append("out")

    with ranks.by_first(noting) as number:
        pass
    return {
        "place": tuple(ranks.place()),
        "first": ranks.first(lambda: [*ranks.place(), ranks.first(ranks.size)]),
        "entered": [number, *entered],
        "first fails": _failure(lambda: ranks.first(lambda: _fail(0))),
        "together": ranks.together(ranks.rank),
        "second fails": _failure(lambda: ranks.together(lambda: _fail(1))),
        "agreed": ranks.agreed("same", "it"),
        "not agreed": _failure(lambda: ranks.agreed(ranks.rank(), "it")),
    }


def _fail(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        raise UserError(f"process {rank}")


def _failure(function: Callable[[], Any]) -> str:
    try:
        function()
    except UserError as failure:
        return str(failure)
    return ""


def main(folder: Path) -> None:
    """All cases, in each process of a group, one after the other."""
    warnings.simplefilter("ignore")
    with ranks.group():
        told = heard()
        done: dict[str, Any] = {
            f"{option}/{name}": trained(case, option, ranks.size())._asdict()
            for option, names in {"ddp": tuple(CASES), "fsdp": SHARED_OUT}.items()
            for name, case in {name: CASES[name] for name in names}.items()
        }
        try:
            trained(CASES[COPYING], "fsdp", ranks.size())
        except UserError as refusal:
            done["refusal"] = str(refusal)
        done["heard"] = told
        torch.save(done, folder / f"{ranks.rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The same training on one and on two processes: what ``scaling.py`` compares."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from scaling_cells import apart

from ensemble_kd.config import compose
from ensemble_kd.plan import Plan, make_plan
from ensemble_kd.report.curves import read_points
from ensemble_kd.report.recording import Curves
from ensemble_kd.stage import Stage
from ensemble_kd.teachers import Ensemble
from ensemble_kd.training import accuracy, assemble, frozen, train

EPOCHS, BATCH, SMALL, LARGE = 4, 128, 1024, 8 * 2**20
COMMON = (
    *("data=digits", "data.labelled=null", "teacher.gate=false", "controls=[]", "cache=off"),
    *("optimizer=sgd", "optimizer.lr=0.05"),
)
CASES = {
    "mlp_large without BatchNorm, one teacher": (
        *("student=mlp_large", "student.batch_norm=false", "student.hidden=[512,512]"),
        "teacher.members=[cnn_medium]",
    ),
    "resnet_small with BatchNorm, three teachers": (
        *("student=resnet_small", "student.widths=[16,16,32,64]"),
        "teacher.members=[cnn_large,cnn_large,cnn_large]",
    ),
}


class Trained(NamedTuple):
    """A training of some processes together.

    Attributes:
        first: seconds from the beginning of the second epoch to the end of the last.
        whole: seconds from the beginning to the end, with the start of the processes.
        samples: of an epoch.
        weights: of the student at the end, as arrays, which any process can send.
        said: validation accuracy after the last epoch, as the processes merged it.
        alone: the same, computed by one process.
    """

    first: float
    whole: float
    samples: int
    weights: dict[str, Any]
    said: float
    alone: float


class Timer(Callback):
    """Writes how long all epochs but the first took, from the first process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.begun = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(time.perf_counter() - self.begun))


def training(case: str, ranks: int) -> Trained:
    """Train the student of a case on so many processes, with the same batches in all."""
    with tempfile.TemporaryDirectory() as folder:
        several = ("trainer=ddp", "trainer.accelerator=cpu") if ranks > 1 else ()
        asked = [*COMMON, *CASES[case], *several, f"batch_size={BATCH // ranks}"]
        config = compose([*asked, f"paths.store={folder}", f"epochs={EPOCHS}"])
        plan = make_plan(config)
        stage = next(each for each in plan.stages if each.name == "student")
        timer, curves = Timer(Path(folder) / "timer"), Curves(Path(folder) / "curves", "student")
        learner = assemble(stage)
        ensemble = Ensemble(frozen(learner.strategy, _teachers(plan, stage)))
        begun = time.perf_counter()
        train(stage, learner, ensemble, plan.data, plan.classes, [timer, curves], [])
        whole = time.perf_counter() - begun
        plan.data.trainer = None
        said = [p.value for p in read_points(curves.path) if p.name == "student/val_accuracy"]
        batches = len(plan.data.train_dataloader()) // ranks
        return Trained(
            json.loads(timer.path.read_text()),
            whole,
            batches * BATCH,
            {name: each.numpy() for name, each in learner.student.state_dict().items()},
            said[-1],
            # As precise as what is logged.
            float(torch.tensor(accuracy(learner.student, plan.data.val_dataloader()))),
        )


def _teachers(plan: Plan, stage: Stage) -> list[Any]:
    stages = {each.name: each for each in plan.stages}
    return [assemble(stages[name]).student for name in stage.teachers]


class Compared(NamedTuple):
    """One round.

    Attributes:
        case: name.
        throughput: samples per second of two processes as a multiple of one's, after the start.
        with_start: likewise, of the whole training.
        difference: largest difference of a weight, as a share of the largest weight of its tensor.
        merged: largest difference between a metric that the processes merged and the same metric
            of one process.
    """

    case: str
    throughput: float
    with_start: float
    difference: float
    merged: float


def compared(case: str) -> Compared:
    """Train on one and then on two processes."""
    one, two = (apart(training, case, ranks) for ranks in (1, 2))
    return Compared(
        case,
        one.first / two.first * two.samples / one.samples,
        one.whole / two.whole * two.samples / one.samples,
        max(difference(one.weights[name], two.weights[name]) for name in one.weights),
        max(abs(each.said - each.alone) for each in (one, two)),
    )


def difference(one: Any, other: Any) -> float:
    """Of two tensors: the largest difference as a share of the largest value."""
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    if not one.is_floating_point():
        return float((one != other).any())
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-12))


def link() -> tuple[float, float]:
    """Bytes per second between two processes here, and seconds for one message."""
    context = torch.multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    others = [context.Process(target=_reduced, args=(rank, port, queue)) for rank in (0, 1)]
    for process in others:
        process.start()
    small, large = queue.get()
    for process in others:
        process.join()
    latency = small / 2  # there and back
    return LARGE / max(large - small, 1e-9), latency


def _reduced(rank: int, port: int, queue: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    taken = []
    for size in (SMALL, LARGE):
        values, spent = torch.ones(size // 4), []
        for _ in range(12):
            begun = time.perf_counter()
            torch.distributed.all_reduce(values)
            spent.append(time.perf_counter() - begun)
        taken.append(sorted(spent)[6])
    if rank == 0:
        queue.put(tuple(taken))
    torch.distributed.destroy_process_group()

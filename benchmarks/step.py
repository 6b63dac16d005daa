"""python benchmarks/step.py: a training step with three live teachers, against a hand-written loop.

Both do the same work on the same batches: three frozen convolutional teachers, a small student,
label and soft loss, AdamW with a cosine schedule. Rounds are interleaved; the figures are medians
over the rounds of CPU time and of wall time, as ratios to the hand-written loop of the same round.
Peak memory is taken from one process for each way.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from ensemble_kd.descent import Descent
from ensemble_kd.module import DistillationModule
from ensemble_kd.networks import Cnn
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.report.recording import Curves
from ensemble_kd.schedules import Cosine
from ensemble_kd.strategies import Parallel
from ensemble_kd.teachers import Ensemble, Frozen
from ensemble_kd.types import Batch
from ensemble_kd.weightings import Uniform

CLASSES, TEMPERATURE, EPOCHS = 10, 2.0, 2


class Cost(NamedTuple):
    """Seconds of one epoch."""

    cpu: float
    wall: float


class Loader:
    """Whole batches of random images that lie in memory."""

    def __init__(self, batches: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(batches * size, 1, 28, 28, generator=generator)
        self.target = torch.randint(CLASSES, (batches * size,), generator=generator)
        self.size = size

    def __len__(self) -> int:
        return len(self.inputs) // self.size

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.inputs), self.size):
            rows = slice(start, start + self.size)
            yield Batch(self.inputs[rows], self.target[rows], torch.arange(start, rows.stop))


class Timer(Callback):
    """Times the last epoch of a training."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = Cost(time.process_time(), time.perf_counter())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cost = Cost(
            time.process_time() - self.start.cpu, time.perf_counter() - self.start.wall
        )


def networks() -> tuple[nn.Module, list[nn.Module]]:
    torch.manual_seed(0)
    inputs = [1, 28, 28]
    teachers: list[nn.Module] = [Cnn(inputs, CLASSES, widths=[32, 64]) for _ in range(3)]
    return Cnn(inputs, CLASSES, widths=[8, 16]), teachers


def by_hand(loader: Loader) -> Cost:
    student, teachers = networks()
    for teacher in teachers:
        teacher.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.01)
    schedule, total = Cosine(), EPOCHS * len(loader)
    scheduler = LambdaLR(optimizer, lambda step: schedule(step / total))
    cost = Cost(0.0, 0.0)
    for _ in range(EPOCHS):
        start = Cost(time.process_time(), time.perf_counter())
        student.train()
        for batch in loader:
            with torch.inference_mode():
                said = [teacher(batch.inputs) for teacher in teachers]
            logits = student(batch.inputs)
            log_q = F.log_softmax(logits / TEMPERATURE, -1)
            soft = torch.zeros(())
            for each in said:
                log_p = F.log_softmax(each.clone() / TEMPERATURE, -1)
                kl = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
                soft = soft + kl * TEMPERATURE**2 / len(said)
            loss = F.cross_entropy(logits, batch.target) + soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        cost = Cost(time.process_time() - start.cpu, time.perf_counter() - start.wall)
    return cost


def with_the_framework(loader: Loader, logging: bool) -> Cost:
    student, teachers = networks()
    terms = {"label": Term(Label()), "soft": Term(Soft(temperature=TEMPERATURE))}
    descent = Descent(0.01, functools.partial(torch.optim.AdamW), Cosine())
    ensemble = Ensemble([Frozen(teacher) for teacher in teachers])
    module = DistillationModule(
        student, ensemble, Parallel(terms, Uniform()), {"default": descent}, CLASSES
    )
    timer = Timer()
    with tempfile.TemporaryDirectory() as folder:
        recorded: list[Callback] = [Curves(Path(folder) / "curves.csv", "student")]
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=EPOCHS,
            logger=CSVLogger(folder) if logging else False,
            callbacks=[*(recorded if logging else []), timer],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            log_every_n_steps=1,
        )
        trainer.fit(module, train_dataloaders=loader)
    return timer.cost


WAYS: dict[str, Callable[[Loader], Cost]] = {
    "hand-written loop": by_hand,
    "ensemble_kd": lambda loader: with_the_framework(loader, logging=False),
    "ensemble_kd, logging": lambda loader: with_the_framework(loader, logging=True),
}


def peak_memory(way: str, arguments: argparse.Namespace) -> float:
    """Peak resident memory in MiB of a process that goes one way."""
    command = [sys.executable, __file__, "--only", way, "--batches", str(arguments.batches)]
    said = subprocess.run(
        [*command, "--size", str(arguments.size)], capture_output=True, text=True, check=True
    )
    return float(json.loads(said.stdout.splitlines()[-1])["mebibytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=10, help="steps of one epoch")
    parser.add_argument("--size", type=int, default=64, help="samples of one batch")
    parser.add_argument("--only", choices=list(WAYS), help="one way, and its peak memory")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    loader = Loader(arguments.batches, arguments.size)
    if arguments.only:
        WAYS[arguments.only](loader)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"mebibytes": peak}))
        return
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for _ in range(arguments.rounds + 1):  # the first round warms up
        for name, go in WAYS.items():
            costs[name].append(go(loader))
    hand = costs["hand-written loop"][1:]
    memory = {name: peak_memory(name, arguments) for name in WAYS}
    print(f"{'':24}{'CPU ratio':>12}{'wall ratio':>12}{'ms a step':>12}{'memory ratio':>14}")
    for name, taken in costs.items():
        pairs = list(zip(taken[1:], hand, strict=True))
        cpu = statistics.median(ours.cpu / theirs.cpu for ours, theirs in pairs)
        wall = statistics.median(ours.wall / theirs.wall for ours, theirs in pairs)
        step = 1000 * statistics.median(ours.wall for ours, _ in pairs) / arguments.batches
        room = memory[name] / memory["hand-written loop"]
        print(f"{name:24}{cpu:12.3f}{wall:12.3f}{step:12.1f}{room:14.3f}")


if __name__ == "__main__":
    main()

"""python benchmarks/step.py: a training step under three teachers, against a hand-written loop.

Both do the same work on the same batches: a small student, label and soft loss, AdamW with a cosine
schedule; the teachers answer live (convolutional networks at 28 pixels), or from what was kept (at
8 pixels, a step of a few milliseconds). Rounds are interleaved; the figures are medians, over the
rounds, of the ratio to the hand-written loop of the same round. The hand-written loop logs nothing;
its AdamW is the one that torch gives who does not ask for another. Peak memory is taken from one
process for each way.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from timing import (
    Cost,
    bars,
    begin,
    interleaved,
    milliseconds,
    now,
    publish,
    ratio,
    shown,
    since,
    table,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from trained import epochs

from ensemble_kd.cache import Places
from ensemble_kd.data import Batches, Table
from ensemble_kd.data.orders import Place, Shuffled
from ensemble_kd.networks import Cnn
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.schedules import Cosine
from ensemble_kd.teachers import Cached, Ensemble, Frozen, Memory, Remembered, side_by_side

CLASSES, TEACHERS, TEMPERATURE, EPOCHS, SIZE = 10, 3, 2.0, 2, 64
HAND = "hand-written loop"


class Case(NamedTuple):
    """What is trained: images of so many pixels, batches of an epoch, and widths of the student."""

    name: str
    pixels: int
    batches: int
    widths: tuple[int, ...]
    live: bool
    to_reach: float


CASES = {
    "live": Case("three live teachers", 28, 10, (8, 16), True, 1.03),
    "kept": Case("three teachers, kept answers", 8, 120, (16, 32), False, 1.15),
}


class Work:
    """Random images, networks, and what the teachers say where they are not asked."""

    def __init__(self, case: Case) -> None:
        self.case = case
        generator = torch.Generator().manual_seed(0)
        self.samples, self.inputs = case.batches * SIZE, [1, case.pixels, case.pixels]
        self.images = torch.randn(self.samples, *self.inputs, generator=generator)
        self.target = torch.randint(CLASSES, (self.samples,), generator=generator)
        self.said = torch.randn(TEACHERS, self.samples, CLASSES, generator=generator)

    def student(self) -> nn.Module:
        torch.manual_seed(0)
        return Cnn(self.inputs, CLASSES, widths=self.case.widths)

    def networks(self) -> list[nn.Module]:
        if not self.case.live:
            return []
        torch.manual_seed(1)
        made = [Cnn(self.inputs, CLASSES, widths=[32, 64]) for _ in range(TEACHERS)]
        return [network.eval().requires_grad_(False) for network in made]

    def by_hand(self, fused: bool) -> Cost:
        student, teachers = self.student(), self.networks()
        optimizer = torch.optim.AdamW(student.parameters(), lr=0.01, fused=fused)
        schedule, total = Cosine(), EPOCHS * self.case.batches
        scheduler = LambdaLR(optimizer, lambda step: schedule(step / total))
        cost = Cost(0.0, 0.0)
        for epoch in range(EPOCHS):
            start = now()
            student.train()
            order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(SIZE):
                images, target = self.images[rows], self.target[rows]
                logits = student(images)
                log_q = F.log_softmax(logits / TEMPERATURE, -1)
                soft = torch.zeros(())
                for said in self.answers(teachers, images, rows):
                    log_p = F.log_softmax(said / TEMPERATURE, -1)
                    kl = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
                    soft = soft + kl * TEMPERATURE**2 / TEACHERS
                loss = F.cross_entropy(logits, target) + soft
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
            cost = since(start)
        return cost

    def answers(self, teachers: list[nn.Module], images: Tensor, rows: Tensor) -> list[Tensor]:
        if not teachers:
            return [said[rows] for said in self.said]
        with torch.inference_mode():
            said = [teacher(images) for teacher in teachers]
        return [each.clone() for each in said]

    def ensemble(self) -> Ensemble:
        if self.case.live:
            return Ensemble([Frozen(network) for network in self.networks()])
        places = Places(torch.arange(self.samples), 1)
        memories = side_by_side([Memory(places, said[:, None]) for said in self.said])
        unasked = [Frozen(nn.Identity()) for _ in memories]
        return Cached(unasked, [Remembered(memory, {}) for memory in memories], SIZE)

    def with_the_framework(self, logging: bool, fused: bool) -> Cost:
        terms = {"label": Term(Label()), "soft": Term(Soft(temperature=TEMPERATURE))}
        order = Shuffled(torch.arange(self.samples), SIZE, seed=1)
        batches = Batches(Table(self.images, self.target), order, Place)
        student, teachers = self.student(), self.ensemble()
        return epochs(student, teachers, terms, batches, CLASSES, EPOCHS, logging, fused)

    def ways(self) -> dict[str, Callable[[], Cost]]:
        return {
            HAND: lambda: self.by_hand(fused=False),
            f"{HAND}, fused AdamW": lambda: self.by_hand(fused=True),
            "ensemble_kd, no logging": lambda: self.with_the_framework(False, fused=False),
            "ensemble_kd": lambda: self.with_the_framework(True, fused=False),
            "ensemble_kd, fused AdamW": lambda: self.with_the_framework(True, fused=True),
        }


def peak_memory(case: str, way: str) -> float:
    """Peak resident memory in MiB of a process that goes one way."""
    command = [sys.executable, __file__, "--case", case, "--only", way]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(said.stdout.splitlines()[-1])["mebibytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=list(CASES), default="live")
    parser.add_argument("--only", metavar="WAY", help="one way of a case, and its peak memory")
    arguments = begin(parser, rounds=15)
    if arguments.only:
        Work(CASES[arguments.case]).ways()[arguments.only]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"mebibytes": peak}))
        return
    rows, drawn, limits = [], {}, {}
    for name, case in CASES.items():
        costs = interleaved(Work(case).ways(), arguments.rounds)
        memory = {way: peak_memory(name, way) for way in costs}
        for way, taken in costs.items():
            found = ratio(taken, costs[HAND])
            room = f"{memory[way] / memory[HAND]:.3f}"
            step = f"{milliseconds(taken) / case.batches:.2f} ms"
            rows.append([case.name, way, step, shown(found), f"{found.wall:.3f}", room])
            if not way.startswith(HAND):
                drawn[f"{case.name}: {way}"] = found
                limits[f"{case.name}: {way}"] = case.to_reach
    columns = ("teachers", "way", "a step", "CPU [quartiles]", "wall", "peak memory")
    publish("step", table(columns, rows))
    bars("step", drawn, limits, "CPU time of a step / hand-written loop")


if __name__ == "__main__":
    main()

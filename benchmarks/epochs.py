"""python benchmarks/epochs.py: epochs with N teachers that answered before, and with none.

The same student on the same random images in batches of 64; with teachers it also descends the
soft term (temperature 2, equal weights). Logging to CSV and ``curves.csv`` are on everywhere. The
figures are medians of ratios over interleaved rounds; each round trains two epochs, of which the
second counts.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from timing import Cost, Ratio, bars, begin, interleaved, milliseconds, publish, ratio, table
from torch import Tensor, nn
from trained import epochs

from ensemble_kd.cache import Float32, Places, Record, Shelf
from ensemble_kd.data import Batches, Table
from ensemble_kd.data.orders import Place, Shuffled
from ensemble_kd.networks import Cnn, ResNet
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.teachers import (
    Cached,
    Ensemble,
    Frozen,
    Memory,
    Remembered,
    lifted,
    side_by_side,
)

SAMPLES, SIZE, CLASSES, EPOCHS, LIMIT = 5120, 64, 10, 2, 1.05
INPUTS = [1, 28, 28]
TEACHERS = (1, 3, 10, 30)


class Case(NamedTuple):
    """A student, and where the answers of its teachers are."""

    student: str
    where: str
    teachers: int


class Work:
    """The data, and what up to thirty teachers said of it."""

    def __init__(self, folder: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(SAMPLES, *INPUTS, generator=generator)
        target = torch.randint(CLASSES, (SAMPLES,), generator=generator)
        self.table = Table(inputs, target)
        self.said = [torch.randn(SAMPLES, CLASSES, generator=generator) for _ in range(30)]
        self.records = [_recorded(folder, number, said) for number, said in enumerate(self.said)]

    def teachers(self, case: Case) -> Ensemble:
        """Teachers that would fail if they were asked."""
        if not case.teachers:
            return Ensemble()
        members = [Frozen(nn.Identity()) for _ in range(case.teachers)]
        if case.where == "disk":
            records = {str(n): each for n, each in enumerate(self.records[: case.teachers])}
            found = lifted(records) or records
            known = [Remembered(each, {}) for each in found.values()]
            return Cached(members, known, SIZE)
        places = Places(torch.arange(SAMPLES), 1)
        memories = [Memory(places, said[:, None]) for said in self.said[: case.teachers]]
        known = [Remembered(each, {}) for each in side_by_side(memories)]
        return Cached(members, known, SIZE)

    def epochs(self, case: Case) -> Cost:
        """Train, and time."""
        torch.manual_seed(0)
        terms = {"label": Term(Label())}
        if case.teachers:
            terms["soft"] = Term(Soft(temperature=2.0))
        student, steps = STUDENTS[case.student]
        batches = Batches(self.table, Shuffled(torch.arange(steps * SIZE), SIZE, seed=1), Place)
        return epochs(student(), self.teachers(case), terms, batches, CLASSES, EPOCHS)


def _small() -> nn.Module:
    return Cnn(INPUTS, CLASSES, widths=[8, 16])


def _large() -> nn.Module:
    return ResNet(INPUTS, CLASSES, 8)


STUDENTS = {"cnn": (_small, SAMPLES // SIZE), "resnet-8": (_large, 20)}
"""How each is made, and the batches of an epoch."""


def _recorded(folder: Path, number: int, said: Tensor) -> Record:
    shelf, key, index = Shelf(folder), f"{number:032x}", torch.arange(SAMPLES)
    with shelf.locked(key):
        writer = shelf.writing(key, {}, index, 1, (CLASSES,), Float32())
        writer.write(0, 0, Float32().encode(said, index, torch.zeros_like(index)))
        writer.finish()
    record = shelf.find(key)
    if record is None:
        raise SystemExit(f"{folder}: a record that was just written is not there")
    return record


def main() -> None:
    arguments = begin(argparse.ArgumentParser(description=__doc__), rounds=9)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        rows: list[list[str]] = []
        drawn: dict[str, Ratio] = {}
        for student in STUDENTS:
            cases = [Case(student, "memory", 0)]
            cases += [Case(student, "memory", count) for count in TEACHERS]
            cases += [Case(student, "disk", count) for count in TEACHERS]
            ways = {str(case): functools.partial(work.epochs, case) for case in cases}
            costs = interleaved(ways, arguments.rounds)
            alone = costs[str(cases[0])]
            step = milliseconds(alone) / STUDENTS[student][1]
            for case in cases[1:]:
                found = ratio(costs[str(case)], alone)
                name = f"{student}, {case.where}, N = {case.teachers}"
                drawn[name] = found
                cells = f"{found.cpu:.3f}", f"{found.low:.3f} to {found.high:.3f}"
                where, count = case.where, str(case.teachers)
                rows.append([student, f"{step:.1f} ms", where, count, *cells, f"{found.wall:.3f}"])
    columns = ("student", "its step alone", "answers in", "N", "CPU", "quartiles", "wall")
    publish("epochs", table(columns, rows))
    bars("epochs", drawn, dict.fromkeys(drawn, LIMIT), "CPU time of an epoch / without teachers")


if __name__ == "__main__":
    main()

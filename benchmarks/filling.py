"""python benchmarks/filling.py: keeping what three teachers say, against bare forward passes.

The bare way calls the networks on batches that lie ready, in inference mode, and forgets what they
say. The others prepare every batch from the images as a training does, ask the teachers, and keep
their answers: in memory, or on disk with locks, digests and a journal. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from timing import Way, bars, begin, interleaved, milliseconds, publish, ratio, shown, table, timed
from torch import Tensor, nn

from ensemble_kd.cache import Format, format_named
from ensemble_kd.data import Recurring, Table
from ensemble_kd.networks import Cnn, ResNet
from ensemble_kd.recall import Inquiry, Recall
from ensemble_kd.report.progress import StageProgress
from ensemble_kd.teachers import Ensemble, Frozen

SAMPLES, SIZE, CLASSES, TEACHERS = 512, 64, 10, 3
INPUTS = [1, 28, 28]
BARE, LIMIT = "bare forward passes", 1.10
FORMATS = ("float32", "float16", "topk-3", "sampled-16-seed-0")


class Case(NamedTuple):
    """Teachers of one architecture."""

    name: str
    networks: list[nn.Module]


class Work:
    """Images as bytes, and teachers."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (SAMPLES, *INPUTS), generator=generator, dtype=torch.uint8)
        target = torch.zeros(SAMPLES, dtype=torch.int64)
        index = torch.arange(SAMPLES)
        self.recurring = Recurring(Table(images, target, 0.3, 0.4), index, 1, None, 0)
        self.ready = list(self.recurring.batches(self.recurring.chunks(SIZE), SIZE))
        self.networks = case.networks
        names = [f"teacher/{number}" for number in range(TEACHERS)]
        self.teachers = {n: Frozen(e) for n, e in zip(names, case.networks, strict=True)}
        self.digests = {name: f"digest of {name}" for name in names}

    def bare(self) -> list[Tensor]:
        with torch.inference_mode():
            return [network(batch) for batch in self.ready for network in self.networks]

    def kept(self, root: Path | None, format: Format) -> None:
        recall = Recall(root)
        asked = Inquiry(
            "train", "data", self.recurring, SIZE, "32-true", "cpu", 1, fast=False, format=format
        )
        progress = StageProgress(1, 1, "student", 1, io.StringIO())
        recall.of(
            self.teachers, self.digests, asked, lambda members, batches: Ensemble(members), progress
        )

    def on_disk(self, root: Path, format: Format) -> None:
        self.kept(root, format)
        shutil.rmtree(root)

    def ways(self, root: Path) -> Mapping[str, Way]:
        exact = format_named("float32")
        ways = {BARE: timed(self.bare), "memory": timed(partial(self.kept, None, exact))}
        for name in FORMATS:
            ways[f"disk, {name}"] = timed(partial(self.on_disk, root, format_named(name)))
        return ways


def cases() -> list[Case]:
    torch.manual_seed(0)
    cnns: list[nn.Module] = [Cnn(INPUTS, CLASSES, [32, 64]) for _ in range(TEACHERS)]
    resnets: list[nn.Module] = [ResNet(INPUTS, CLASSES, 20) for _ in range(TEACHERS)]
    return [Case("cnn", cnns), Case("resnet-20", resnets)]


def main() -> None:
    arguments = begin(argparse.ArgumentParser(description=__doc__), rounds=9)
    rows, drawn = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            costs = interleaved(Work(case).ways(Path(folder) / "store"), arguments.rounds)
            for name, taken in costs.items():
                found = ratio(taken, costs[BARE])
                spent = f"{1000 * milliseconds(taken) / SAMPLES / TEACHERS:.0f} us"
                rows.append([f"3 x {case.name}", name, spent, shown(found), f"{found.wall:.3f}"])
                if name != BARE:
                    drawn[f"3 x {case.name}, {name}"] = found
    columns = ("teachers", "way", "an answer", "CPU [quartiles]", "wall")
    publish("filling", table(columns, rows))
    bars("filling", drawn, dict.fromkeys(drawn, LIMIT), f"CPU time / {BARE}")


if __name__ == "__main__":
    main()

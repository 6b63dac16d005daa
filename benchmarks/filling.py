"""python benchmarks/filling.py: keeping what three teachers say, against bare forward passes.

The bare way calls the networks on batches that lie ready, in inference mode, and forgets what they
say. The others prepare every batch from the images as a training does, ask the teachers, and keep
their answers: in memory, or on disk with locks, digests and a journal. Rounds are interleaved.

With ``--workers N`` the time is that of N processes with one thread each which fill the same
records, against that of one, from when all of them are ready; nothing is written.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timing import Way, bars, begin, interleaved, milliseconds, publish, ratio, shown, table, timed
from torch import Tensor, nn

from ensemble_kd.asking.inquiry import Inquiry
from ensemble_kd.asking.recall import Recall
from ensemble_kd.cache import Format, format_named
from ensemble_kd.data import Recurring, Table
from ensemble_kd.networks import Cnn, ResNet
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
            return [network(batch.inputs) for batch in self.ready for network in self.networks]

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


def worker(number: int, root: Path, ready: Any, go: Any, done: Any) -> None:
    """One of several that fill the records below ``root / ROUND`` together, once per round."""
    torch.set_num_threads(1)
    work = Work(cases()[number])
    work.bare()
    while True:
        ready.wait()
        turn = go.get()
        if turn is None:
            return
        work.kept(root / turn, format_named("float32"))
        done.put(turn)


def seconds(number: int, size: int, rounds: int, root: Path) -> list[float]:
    """How long so many workers take, in each of some rounds."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(size + 1)
    go, done = context.Queue(), context.Queue()
    crew = [
        context.Process(target=worker, args=(number, root, ready, go, done)) for _ in range(size)
    ]
    for each in crew:
        each.start()
    taken = []
    for turn in range(rounds):
        ready.wait()
        start = time.perf_counter()
        for _ in crew:
            go.put(f"{size}-{turn}")
        for _ in crew:
            done.get()
        taken.append(time.perf_counter() - start)
    ready.wait()
    for _ in crew:
        go.put(None)
    for each in crew:
        each.join()
    return taken


def compare_workers(size: int, rounds: int) -> None:
    """Print how many times as fast several workers are as one."""
    for number, case in enumerate(cases()):
        with tempfile.TemporaryDirectory() as folder:
            pairs = [
                (
                    seconds(number, 1, 3, Path(folder) / f"{turn}-alone"),
                    seconds(number, size, 3, Path(folder) / f"{turn}-together"),
                )
                for turn in range(rounds)
            ]
        alone, together = ([min(taken) for taken in each] for each in zip(*pairs, strict=True))
        ratios = [one / many for one, many in zip(alone, together, strict=True)]
        print(
            f"3 x {case.name}, {SAMPLES} samples: {statistics.median(alone):.2f} s alone, "
            f"{statistics.median(together):.2f} s by {size} workers, "
            f"{statistics.median(ratios):.2f} times as fast [{min(ratios):.2f}, {max(ratios):.2f}]"
        )


def cases() -> list[Case]:
    torch.manual_seed(0)
    cnns: list[nn.Module] = [Cnn(INPUTS, CLASSES, [32, 64]) for _ in range(TEACHERS)]
    resnets: list[nn.Module] = [ResNet(INPUTS, CLASSES, 20) for _ in range(TEACHERS)]
    return [Case("cnn", cnns), Case("resnet-20", resnets)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, help="only compare so many workers with one")
    arguments = begin(parser, rounds=9)
    if arguments.workers:
        compare_workers(arguments.workers, arguments.rounds)
        return
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

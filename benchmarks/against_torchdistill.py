"""python benchmarks/against_torchdistill.py SITE: the same three-teacher task, in samples a second.

SITE is a folder in which torchdistill and torchvision lie, so that they need not live beside the
project (with torch itself they share the one that is installed here)::

    pip install --no-deps --target SITE torchdistill==1.1.5 torchvision==0.28.0

torchdistill has one teacher: here it is a module that runs three networks and gives logits whose
softened distribution is the mean of theirs. So both sides descend the same loss (cross-entropy and
T^2 KL from that mean, one half each) with the same optimiser on the same images in memory, and both
get data in the fastest way they have: torchdistill from a DataLoader without workers, which is the
faster one for data in memory. Nothing is logged. Rounds are interleaved; the figures are medians of
ratios of CPU time and of wall time.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import sys
from typing import Any

import torch
from step import CLASSES, SIZE
from timing import (
    Cost,
    Ratio,
    Way,
    bars,
    begin,
    interleaved,
    milliseconds,
    now,
    publish,
    ratio,
    since,
)
from timing import table as lines_of
from torch import Tensor, nn
from torch.utils.data import RandomSampler, TensorDataset
from trained import epochs

from ensemble_kd.cache import Places
from ensemble_kd.data import Batches, Table
from ensemble_kd.data.orders import Place, Shuffled
from ensemble_kd.networks import Cnn, ResNet
from ensemble_kd.objectives import Label, Soft, Term
from ensemble_kd.teachers import (
    Cached,
    Ensemble,
    Frozen,
    Memory,
    Quick,
    Remembered,
    side_by_side,
)
from ensemble_kd.teachers.runtimes import Allowed
from ensemble_kd.types import Batch

TEACHERS, TEMPERATURE, EPOCHS = 3, 2.0, 2
KINDS = {"cnn": 1920, "resnet-20": 384}
"""Teachers, and how many images make an epoch."""
INPUTS = [1, 28, 28]
THEIRS = "torchdistill"
LIVE, KEPT = 1.2, 2.5
"""Samples per second, as a multiple of torchdistill's, that are to be reached."""


class Mean(nn.Module):
    """Three networks as one teacher, whose softened distribution is the mean of theirs."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> Tensor:
        said = torch.stack([(n(inputs) / TEMPERATURE).softmax(-1) for n in self.networks])
        return TEMPERATURE * said.mean(0).log()


class Work:
    """Images, a student and three teachers of one kind."""

    def __init__(self, kind: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.samples = KINDS[kind]
        self.images = torch.randn(self.samples, *INPUTS, generator=generator)
        self.target = torch.randint(CLASSES, (self.samples,), generator=generator)
        torch.manual_seed(1)
        made = [self.network(kind) for _ in range(TEACHERS)]
        self.networks = [network.eval().requires_grad_(False) for network in made]
        with torch.inference_mode():
            said = [torch.cat([n(x) for x in self.images.split(SIZE)]) for n in self.networks]
        places = Places(torch.arange(self.samples), 1)
        self.memories = side_by_side([Memory(places, each.clone()[:, None]) for each in said])
        self.quick = {way: self._quick(way) for way in ("exact", "fast")}

    @staticmethod
    def network(kind: str) -> nn.Module:
        return Cnn(INPUTS, CLASSES, [32, 64]) if kind == "cnn" else ResNet(INPUTS, CLASSES, 20)

    @staticmethod
    def student() -> nn.Module:
        torch.manual_seed(0)
        return Cnn(INPUTS, CLASSES, widths=[8, 16])

    def _quick(self, allowed: Allowed) -> Ensemble:
        made = Quick([Frozen(n) for n in self.networks], allowed, lambda said: print(said[:160]))
        rows = torch.arange(SIZE)
        made.own(Batch(self.images[:SIZE], rows, rows))  # chooses
        return made

    def kept(self) -> Ensemble:
        members = [Frozen(network) for network in self.networks]
        remembered = [Remembered(memory, {}) for memory in self.memories]
        return Cached(members, remembered, SIZE)

    def ours(self, teachers: Ensemble) -> Cost:
        soft = Soft(temperature=TEMPERATURE, merge="probabilities")
        terms = {"label": Term(Label(), 0.5), "soft": Term(soft, 0.5)}
        order = Shuffled(torch.arange(self.samples), SIZE, seed=1)
        batches = Batches(Table(self.images, self.target), order, Place)
        student = self.student()
        return epochs(student, teachers, terms, batches, CLASSES, EPOCHS, False, fused=False)

    def theirs(self) -> Cost:
        box_of = importlib.import_module("torchdistill.core.distillation").DistillationBox
        loader = {
            "dataset_id": "train",
            "requires_supp": False,
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": SIZE, "num_workers": 0, "drop_last": True},
        }
        criterion = {
            "key": "KDLoss",
            "kwargs": {
                "student_module_path": ".",
                "student_module_io": "output",
                "teacher_module_path": ".",
                "teacher_module_io": "output",
                "temperature": TEMPERATURE,
                "alpha": 0.5,
            },
        }
        config: dict[str, Any] = {
            "num_epochs": EPOCHS,
            "train_data_loader": loader,
            "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
            "student": {"requires_grad": True, "forward_proc": "forward_batch_only"},
            "optimizer": {"key": "AdamW", "kwargs": {"lr": 0.01}},
            "criterion": {
                "key": "WeightedSumLoss",
                "kwargs": {"sub_terms": {"kd": {"criterion": criterion, "weight": 1.0}}},
            },
        }
        data = {"train": TensorDataset(self.images, self.target)}
        teacher = Mean(self.networks).eval()
        box = box_of(teacher, self.student(), data, config, torch.device("cpu"), None, False, 1)
        cost = Cost(0.0, 0.0)
        for epoch in range(EPOCHS):
            start = now()
            box.pre_epoch_process(epoch=epoch)
            for images, target in box.train_data_loader:
                loss = box.forward_process(images, target)
                box.post_forward_process(loss=loss)
            box.post_epoch_process()
            cost = since(start)
        return cost

    def ways(self) -> dict[str, Way]:
        plain = Ensemble([Frozen(network) for network in self.networks])
        return {
            THEIRS: self.theirs,
            "live, plain": lambda: self.ours(plain),
            "live, exact": lambda: self.ours(self.quick["exact"]),
            "live, fast": lambda: self.ours(self.quick["fast"]),
            "kept answers": lambda: self.ours(self.kept()),
        }


def prepare(site: str) -> None:
    """Make torchdistill importable, beside a torch for which its torchvision was not built."""
    sys.path.append(site)
    if importlib.util.find_spec("torchdistill") is None:
        raise SystemExit(f"{site}: expected a folder with torchdistill and torchvision")
    missing = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        missing.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_operators"] = missing  # they are gone with the object


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site")
    arguments = begin(parser, rounds=9)
    prepare(arguments.site)
    logging.disable(logging.WARNING)
    rows, drawn, limits = [], {}, {}
    for kind, samples in KINDS.items():
        costs = interleaved(Work(kind).ways(), arguments.rounds)
        for name, taken in costs.items():
            # Samples per second: how many times ours is theirs.
            found = ratio(costs[THEIRS], taken)
            speed = f"{samples / (milliseconds(taken) / 1000):,.0f}"
            cells = f"{found.cpu:.2f} [{found.low:.2f}, {found.high:.2f}]", f"{found.wall:.2f}"
            rows.append([f"3 x {kind}", name, speed, *cells])
            if name != THEIRS:
                drawn[f"3 x {kind}: {name}"] = Ratio(*found)
                limits[f"3 x {kind}: {name}"] = KEPT if name.startswith("kept") else LIVE
    columns = ("teachers", "way", "samples per CPU second", "CPU [quartiles]", "wall")
    publish("torchdistill", lines_of(columns, rows))
    bars("torchdistill", drawn, limits, f"samples per second / {THEIRS}")


if __name__ == "__main__":
    main()
